"""Deliberate breaks of a worker, to show that the oracle catches them. Each patches the process it is called in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tpstream.bus import changelog
from tpstream.bus.changelog import Changelogs, Folded, fold
from tpstream.bus.checkpoint import Checkpoint
from tpstream.bus.table import Table
from tpstream.uplink.repeats import PartitionMemory


def commits_early() -> None:
    """Offsets are committed before what follows from them is durable."""
    Checkpoint.STEPS = ("fence", "commit", "flush", "changelog", "state")


def forgets_marks() -> None:
    """Values are stored without the positions that they have folded."""
    encode = Table.encode

    def without_marks(self: Table[Any], value: Any, marks: Any, life: bytes, stamp: int) -> bytes:
        return encode(self, value, (), life, stamp)

    Table.encode = without_marks  # type: ignore[method-assign, assignment]


def ignores_zombies() -> None:
    """A worker neither asks whether it still is one, nor looks at whose a changelog's record is."""

    async def asks_nobody(self: Checkpoint, cut: Any) -> None:
        pass

    async def sees_nothing(self: Changelogs) -> dict[int, int]:
        return {}

    def believes_all(records: Sequence[Any], stamp: int) -> Folded:
        values: dict[str, bytes | None] = {}
        foreign = 0
        for record in records:
            one = fold([record], 0)
            values |= one.values
            stamp, foreign = max(stamp, one.stamp), foreign + one.foreign
        return Folded(values, stamp, 0, foreign)

    Checkpoint._fence = asks_nobody  # type: ignore[method-assign]
    Changelogs.heal = sees_nothing  # type: ignore[method-assign]
    changelog.fold = believes_all


def hears_no_repeats() -> None:
    """What a bridge produced again counts as new."""

    def takes_for_new(self: PartitionMemory, offset: int, incarnation: int, sequence: int) -> bool:
        return False

    PartitionMemory.retried = takes_for_new  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {
    "commits early": commits_early,
    "forgets marks": forgets_marks,
    "ignores zombies": ignores_zombies,
    "hears no repeats": hears_no_repeats,
}

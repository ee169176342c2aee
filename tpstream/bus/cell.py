"""A key of a table in memory, and what is kept of it while a batch changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tpstream.bus.stored import NEVER

Mark = tuple[int, int, int]
"""Raw partition, offset, index: the newest position folded of that raw partition."""

NOWHERE = -1
"""The partition in a cell that has no mark."""


class Cell:
    """A key in memory: its value (None: absent) and the marks of what the value has folded."""

    __slots__ = (
        "armed",
        "dirty",
        "item",
        "key",
        "offset",
        "others",
        "partition",
        "serial",
        "stored",
        "used",
        "value",
        "writing",
    )

    key: str
    value: Any
    partition: int
    """Raw partition, offset and index of its newest mark; NOWHERE: it has none."""
    offset: int
    item: int
    others: tuple[Mark, ...]
    """Marks of further raw partitions."""
    serial: int
    """The batch that changed it last."""
    armed: int
    """The clock at which its timer stands, or NEVER."""
    dirty: bool
    """Changed since the last checkpoint."""
    writing: bool
    """In the checkpoint in hand, and not yet on disk."""
    stored: bool
    """A checkpoint has written it: its deletion is to be written, too."""
    used: bool
    """Since the last look for keys that can leave memory."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.value = None
        self.partition = NOWHERE
        self.offset = self.item = -1
        self.others = ()
        self.serial = -1
        self.armed = NEVER
        self.dirty = self.writing = self.stored = False
        self.used = True


class Before(NamedTuple):
    """A cell as it was before the batch in hand."""

    cell: Cell
    copy: Any
    """Of its value, by the table's `copy`; None: it had none."""
    partition: int
    offset: int
    item: int
    others: tuple[Mark, ...]


class Prepared(NamedTuple):
    """What a checkpoint writes of one table partition. Two lists, not a dict: it may be of all keys."""

    cells: list[Cell]
    values: list[bytes | None]
    """Encoded, one for each cell; None: deleted."""

    def items(self) -> Iterator[tuple[str, bytes | None]]:
        """Keys and encoded values."""
        return zip((cell.key for cell in self.cells), self.values, strict=True)


def marks_of(one: Cell | Before) -> tuple[Mark, ...]:
    """All marks, the newest first."""
    if one.partition == NOWHERE:
        return one.others
    return ((one.partition, one.offset, one.item), *one.others)

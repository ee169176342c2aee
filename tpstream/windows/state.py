"""What is remembered of a device's windows: the value of the table `windows`, key: device.

`DeviceWindows` and `Series` are live: a fold changes them in place, and an undone batch puts
back what was `kept`. All else in them is immutable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from tpstream.windows.definition import Window

MAX_OPEN = 10_000
"""Windows (hopping: hops) of one device open at once. Beyond it the earliest are closed."""

MAX_IDLE_SERIES = 200
"""Series of one device up to which those without an open window are kept: they know what was closed."""

NEVER = -(1 << 62)
"""A time before all others: the watermark of a device that has sent no point."""

FAR = 1 << 62
"""A time after all others: when nothing is to happen."""


class Pane(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The points of one hop of one series, folded: what windows are put together from."""

    end: int
    count: int
    a: float
    b: float


class Series(msgspec.Struct, array_like=True, gc=False):
    """The windows of one definition and one key.

    Those of one key are linked, not listed: the garbage collector would look at each of 100,000
    lists, again and again, where it passes over these structs.

    Time is cut into panes as long as a hop; a tumbling window is one pane. A point is folded
    into its pane alone, and a window merges its panes when it closes. The pane of the last
    point is in hand: its fields stand here, as most points fall into it. All windows of a pane
    in hand are open.
    """

    window: str
    size: int
    hop: int
    aggregate: int
    """Its number in `AGGREGATES`."""
    floor: int = NEVER
    """Windows that end at or before this are closed, whatever the watermark says."""
    start: int = 0
    end: int = 0
    count: int = 0
    """Of the pane in hand; 0: there is none, and it begins where it ends."""
    a: float = 0.0
    b: float = 0.0
    others: tuple[Pane, ...] = ()
    """The panes that are not in hand, by rising end."""
    beside: Series | None = None
    """The series of the next definition of the same key."""

    def all(self) -> Iterator[Series]:
        """This one and those of the further definitions of its key."""
        series: Series | None = self
        while series is not None:
            yield series
            series = series.beside


class DeviceWindows(msgspec.Struct, array_like=True, gc=False):
    """A device's watermark and windows. Times in ms."""

    definitions: str
    """The digest of the definitions that the series were made by."""
    watermark: int
    heard: int
    """The partition's clock when the device last said something."""
    closes: int = FAR
    """The watermark at which the next window closes, or FAR."""
    due: int = FAR
    """The partition's clock at which to look whether the device has been silent, or FAR; never too late."""
    key: str = ""
    first: Series | None = None
    """The series of one telemetry key, `key`: of its first definition, with those of the others beside it.
    Many a device has no other, and then needs no dict, which would have to be copied with each batch."""
    more: dict[str, Series] | None = None
    """The same of further keys."""

    def get(self, key: str) -> Series | None:
        """The first series of a key."""
        if key == self.key:
            return self.first
        return None if self.more is None else self.more.get(key)

    def items(self) -> Iterator[tuple[str, Series]]:
        """The keys, each with its first series."""
        if self.first is not None:
            yield self.key, self.first
        if self.more is not None:
            yield from self.more.items()

    def put(self, key: str, series: Series) -> None:
        """Add a key that is not there yet."""
        if self.first is None:
            self.key, self.first = key, series
        elif self.more is None:
            self.more = {key: series}
        else:
            self.more[key] = series

    def keep(self, series: dict[str, Series]) -> None:
        """Have these keys and no others."""
        self.key, self.first, self.more = "", None, None
        for key, one in series.items():
            self.put(key, one)


Kept = tuple[str, int, int, int, int, str, Series, int, int, int, int, float, float, tuple[Pane, ...]]
"""A device of one series: the fields of both, as they were; of the series itself only what never changes counts."""


class Definitions(NamedTuple):
    """The windows in force, arranged for folding."""

    by_name: dict[str, Window]
    by_key: dict[str, tuple[Window, ...]]
    """For each key that a definition names: those, and the ones for every key."""
    wild: tuple[Window, ...]
    """The definitions for every key (`*`)."""
    digest: str

    @classmethod
    def of(cls, windows: Iterable[Window]) -> Definitions:
        """Arrange definitions; their names differ."""
        known = sorted(windows, key=lambda w: w.name)
        wild = tuple(w for w in known if w.key == "*")
        keys = {w.key for w in known} - {"*"}
        return cls(
            {w.name: w for w in known},
            {key: tuple(w for w in known if w.key in (key, "*")) for key in keys},
            wild,
            hashlib.blake2b(repr(known).encode(), digest_size=8).hexdigest(),
        )

    def of_key(self, key: str) -> tuple[Window, ...]:
        """The definitions that fold this telemetry key."""
        return self.by_key.get(key, self.wild)


def beside(series: Sequence[Series]) -> Series:
    """The first of some series of one key, with the others beside it."""
    for one, following in pairwise(series):
        one.beside = following
    series[-1].beside = None
    return series[0]


def kept(state: DeviceWindows) -> DeviceWindows | Kept:
    """What is kept of a state while a batch changes it; `restored` makes the state of it again.

    Most devices have one series: then it is one tuple, at half the price of two structs. It is
    made for each device of each batch, and with 100,000 of them for nearly each message.
    """
    one = state.first
    if one is None or state.more is not None or one.beside is not None:
        return copied(state)
    return (
        state.definitions,
        state.watermark,
        state.heard,
        state.closes,
        state.due,
        state.key,
        one,
        one.floor,
        one.start,
        one.end,
        one.count,
        one.a,
        one.b,
        one.others,
    )


def restored(kept: DeviceWindows | Kept) -> DeviceWindows:
    """The state as it was when `kept` was made of it."""
    if isinstance(kept, DeviceWindows):
        return kept
    definitions, watermark, heard, closes, due, key, one, floor, start, end, count, a, b, others = kept
    series = Series(one.window, one.size, one.hop, one.aggregate, floor, start, end, count, a, b, others)
    return DeviceWindows(definitions, watermark, heard, closes, due, key, series)


def copied(state: DeviceWindows) -> DeviceWindows:
    """The same state, sharing nothing with it that changes."""
    copy: DeviceWindows = state.__copy__()  # type: ignore[attr-defined]  # copy.copy is three times the price
    if state.first is not None:
        copy.first = _copied(state.first)
    if state.more is not None:
        copy.more = {key: _copied(one) for key, one in state.more.items()}
    return copy


def _copied(series: Series) -> Series:
    first: Series = series.__copy__()  # type: ignore[attr-defined]
    one = first
    while one.beside is not None:
        one.beside = one = one.beside.__copy__()  # type: ignore[attr-defined]
    return first


def due(state: DeviceWindows) -> int | None:
    """The partition's clock at which a device's state wants attention."""
    return None if state.due == FAR else state.due

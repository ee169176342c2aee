"""Points into tumbling event-time windows, as pure functions.

A device's watermark is the highest min(ts, delivery) of its points. A window closes when

- the watermark has reached its end by the allowed lateness, or
- the device has been silent for the idle time, by the partition's clock, and that clock has
  reached the window's end: a window is never cut short while its time still runs.

The points of one message are judged by the watermark before it: a history in one message
counts whole, whatever its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from tpstream.messages import Point
from tpstream.windows.aggregates import AGGREGATES
from tpstream.windows.definition import Window
from tpstream.windows.state import MAX_IDLE_SERIES, MAX_OPEN, Definitions, DeviceWindows, Open, Series

NEVER = -(1 << 62)
"""The watermark of a device that has sent no point."""


class Closed(msgspec.Struct, frozen=True, gc=False):
    """A closed window, each once."""

    window: str
    key: str
    start: int
    end: int
    aggregate: str
    value: float
    count: int


class Late(NamedTuple):
    """A point that came after its window had closed."""

    window: str
    point: Point


class Folded(NamedTuple):
    """What a message, or the passing of time, makes of a device's windows."""

    state: DeviceWindows
    closed: Sequence[Closed] = ()
    """By end, then window, then key."""
    late: Sequence[Late] = ()


def fold(state: DeviceWindows | None, points: Iterable[Point], delivery: int, definitions: Definitions) -> Folded:
    """Fold the points of one message, delivered at `delivery` (ms), and close what its watermark closes.

    Values that are no numbers move the watermark only; booleans count as 0 and 1.
    """
    closed: list[Closed] = []
    if state is None:
        state = DeviceWindows(NEVER, delivery, definitions.digest)
    elif state.definitions != definitions.digest:
        state = _adopt(state, definitions, closed)
    before = watermark = state.watermark
    heard = delivery if delivery > state.heard else state.heard
    closes, due = state.closes, state.due
    series = state.series
    fresh: set[str] = set()
    late: list[Late] = []
    grown = False
    for point in points:
        ts = point.ts
        if ts > watermark:
            watermark = ts if ts < delivery else (delivery if delivery > watermark else watermark)
        value = point.number
        if value is None:
            continue
        key = point.key
        for window in definitions.by_key.get(key, definitions.wild):
            size = window.size
            end = ts - ts % size + size
            name = window.name
            keys = series.get(name)
            known = keys.get(key) if keys is not None else None
            if end + window.lateness <= before or (known is not None and end <= known.floor):
                late.append(Late(name, point))
                continue
            if series is state.series:
                series = dict(series)
            if keys is None or name not in fresh:
                fresh.add(name)
                keys = series[name] = dict(keys or ())
            keys[key], opened = _take(known or Series(size, window.aggregate), end, value, ts)
            if opened:
                grown = True
                closes = _least(closes, end + window.lateness)
                due = _least(due, max(heard + window.idle, end))
    folded = DeviceWindows(watermark, heard, state.definitions, closes, due, series)
    if closes is not None and watermark >= closes:
        folded = _close(folded, definitions, closed, lambda window, o: o.end + window.lateness <= watermark)
    if grown and (beyond := _count(folded) - MAX_OPEN) > 0:
        folded = _close_earliest(folded, definitions, closed, beyond)
    return Folded(folded, _in_order(closed), late)


def expire(state: DeviceWindows, clock: int, definitions: Definitions) -> Folded:
    """Close what the device's silence closes at `clock`, the partition's (ms), and say when to look again."""
    closed: list[Closed] = []
    if state.definitions != definitions.digest:
        state = _adopt(state, definitions, closed)
    heard = state.heard
    state = _close(state, definitions, closed, lambda window, o: clock >= max(heard + window.idle, o.end))
    return Folded(state, _in_order(closed))


def _take(series: Series, end: int, value: float, ts: int) -> tuple[Series, bool]:
    """The series with one more value, and whether that opened a window."""
    aggregate = AGGREGATES[series.aggregate]
    windows = series.open
    place = len(windows)
    while place and windows[place - 1].end > end:
        place -= 1
    if place and windows[place - 1].end == end:
        place -= 1
        old = windows[place]
        new = Open(old.start, end, old.count + 1, aggregate.add(old.accumulator, value, ts))
        if len(windows) == 1:
            return Series(series.size, series.aggregate, series.floor, (new,)), False
        return Series(
            series.size, series.aggregate, series.floor, (*windows[:place], new, *windows[place + 1 :])
        ), False
    new = Open(end - series.size, end, 1, aggregate.begin(value, ts))
    return Series(series.size, series.aggregate, series.floor, (*windows[:place], new, *windows[place:])), True


def _close(
    state: DeviceWindows,
    definitions: Definitions,
    closed: list[Closed],
    closes: Callable[[Window, Open], bool],
) -> DeviceWindows:
    """Close the open windows of which `closes` is true, and work out anew what comes next."""
    crowded = sum(map(len, state.series.values())) > MAX_IDLE_SERIES
    kept: dict[str, dict[str, Series]] = {}
    next_close: int | None = None
    next_due: int | None = None
    for name, keys in state.series.items():
        window = definitions.by_name[name]
        for key, series in keys.items():
            gone = [o for o in series.open if closes(window, o)]
            if gone:
                closed.extend(_closed(name, key, series.aggregate, o) for o in gone)
                left = tuple(o for o in series.open if not closes(window, o))
                series = Series(series.size, series.aggregate, max(series.floor, max(o.end for o in gone)), left)
            if series.open:
                first = series.open[0].end
                next_close = _least(next_close, first + window.lateness)
                next_due = _least(next_due, max(state.heard + window.idle, first))
            elif crowded and series.floor + window.lateness <= state.watermark:
                continue  # the watermark says the same, as long as the definition stays what it is
            kept.setdefault(name, {})[key] = series
    return DeviceWindows(state.watermark, state.heard, state.definitions, next_close, next_due, kept)


def _close_earliest(state: DeviceWindows, definitions: Definitions, closed: list[Closed], beyond: int) -> DeviceWindows:
    """Close at least the `beyond` windows that end first; their later points are late."""
    ends = sorted(o.end for keys in state.series.values() for series in keys.values() for o in series.open)
    last = ends[beyond - 1]
    return _close(state, definitions, closed, lambda window, o: o.end <= last)


def _adopt(state: DeviceWindows, definitions: Definitions, closed: list[Closed]) -> DeviceWindows:
    """Go over to other definitions: windows of a changed or vanished one are closed as they are.

    The changed one's first window starts at or after the end of the last of them, so that no two
    windows of a name and key have the same start, which is their identity.
    """
    series: dict[str, dict[str, Series]] = {}
    for name, keys in state.series.items():
        window = definitions.by_name.get(name)
        for key, old in keys.items():
            if window is None or window.key not in (key, "*"):
                closed.extend(_closed(name, key, old.aggregate, o) for o in old.open)
                continue
            new = old
            if (old.size, old.aggregate) != (window.size, window.aggregate):
                closed.extend(_closed(name, key, old.aggregate, o) for o in old.open)
                last = max([old.floor, *(o.end for o in old.open)])
                new = Series(window.size, window.aggregate, last + -last % window.size)
            series.setdefault(name, {})[key] = new
    adopted = DeviceWindows(state.watermark, state.heard, definitions.digest, None, None, series)
    # Lateness and idle time may have changed: work out anew what is closed and what comes next.
    return _close(adopted, definitions, closed, lambda window, o: o.end + window.lateness <= state.watermark)


def _closed(name: str, key: str, aggregate: str, o: Open) -> Closed:
    return Closed(name, key, o.start, o.end, aggregate, AGGREGATES[aggregate].value(o.accumulator, o.count), o.count)


def _in_order(closed: list[Closed]) -> Sequence[Closed]:
    return sorted(closed, key=lambda c: (c.end, c.window, c.key)) if len(closed) > 1 else closed


def _count(state: DeviceWindows) -> int:
    return sum(len(series.open) for keys in state.series.values() for series in keys.values())


def _least(known: int | None, other: int) -> int:
    return other if known is None or other < known else known

"""Points into event-time windows. A fold reads no clock and touches nothing but the state given.

The state is changed in place: the same state, points and definitions end in the same state
and the same results, however messages were grouped.

A device's watermark is the highest min(ts, delivery) of its points. A window closes when

- the watermark has reached its end by the allowed lateness, or
- the device has been silent for the idle time, by the partition's clock, and that clock has
  reached the window's end: a window is never cut short while its time still runs.

The points of one message are judged by the watermark before it: a history in one message
counts whole, whatever its order.

`fold` and `fold_one` are run for every message, so what most points need (they fall into the
pane in hand) is written out in them; what opens or closes a window is in functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tpstream.messages import Point
from tpstream.windows import panes
from tpstream.windows.aggregates import ADD, NUMBERS, SUMMED
from tpstream.windows.definition import Window
from tpstream.windows.panes import Closed
from tpstream.windows.state import FAR, MAX_IDLE_SERIES, MAX_OPEN, NEVER, Definitions, DeviceWindows, Series, beside

__all__ = ["NOTHING", "Closed", "Folded", "Late", "begun", "expire", "fold", "fold_one"]


class Late(NamedTuple):
    """A point that came after a window of that name had closed that it belonged to."""

    window: str
    point: Point


class Folded(NamedTuple):
    """What a message, or the passing of time, brought forth."""

    closed: Sequence[Closed] = ()
    """By end, then window, then key."""
    late: Sequence[Late] = ()


NOTHING = Folded()
"""What most messages bring forth, to be compared with `is`: no window opened, closed or was missed, and
the state is due when it was before."""


def begun(delivery: int, definitions: Definitions) -> DeviceWindows:
    """The state of a device that says something for the first time."""
    return DeviceWindows(definitions.digest, NEVER, delivery)


def fold(
    state: DeviceWindows, points: Iterable[Point], delivery: int, definitions: Definitions, clock: int = 0
) -> Folded:
    """Fold the points of one message, delivered at `delivery` (ms), and close what its watermark closes.

    `clock`: the partition's. Where it is ahead of the delivery, the device is heard at that: it is not silent, however
    far ahead another's clock has brought it.
    Values that are no numbers move the watermark only; booleans count as 0 and 1.
    """
    adopted = _adopt(state, definitions) if state.definitions != definitions.digest else None
    watermark = newest = state.watermark
    if delivery > clock:
        clock = delivery
    if clock > state.heard:
        state.heard = clock
    first_key, first, more = state.key, state.first, state.more
    late: list[Late] | None = None
    opened = False
    for point in points:
        ts = point.ts
        if ts > newest:
            newest = ts
        value = point.number
        if value is None:
            continue
        key = point.key
        series = first if key == first_key else None if more is None else more.get(key)
        if series is None and (key in definitions.by_key or definitions.wild):
            series = _begin(state, key, ts, watermark, definitions)
            first_key, first, more = state.key, state.first, state.more
        while series is not None:
            if series.start <= ts < series.end:
                series.count += 1
                if series.aggregate < SUMMED:
                    series.a += value
                else:
                    ADD[series.aggregate](series, value, ts)
            else:
                missed, new = _place(state, series, ts, value, watermark, definitions)
                opened = opened or new
                if missed:
                    late = late or []
                    late.append(Late(series.window, point))
            series = series.beside
    if newest > watermark:
        if newest > delivery:
            newest = delivery
        if newest > watermark:
            state.watermark = newest
    if not opened and late is None and adopted is None and state.watermark < state.closes:
        return NOTHING
    return _finish(state, definitions, adopted or [], late or (), opened)


def fold_one(
    state: DeviceWindows,
    key: str,
    ts: int,
    value: float | None,
    delivery: int,
    definitions: Definitions,
    clock: int = 0,
) -> Folded:
    """The same as `fold` of a single point."""
    series = state.first if key == state.key else state.get(key)
    if series is None or value is None or state.definitions != definitions.digest:
        return fold(state, (Point(key, ts, value),), delivery, definitions, clock)
    watermark = state.watermark
    if delivery > clock:
        clock = delivery
    if clock > state.heard:
        state.heard = clock
    late: list[Late] | None = None
    opened = False
    while series is not None:
        if series.start <= ts < series.end:
            series.count += 1
            if series.aggregate < SUMMED:
                series.a += value
            else:
                ADD[series.aggregate](series, value, ts)
        else:
            missed, new = _place(state, series, ts, value, watermark, definitions)
            opened = opened or new
            if missed:
                late = late or []
                late.append(Late(series.window, Point(key, ts, value)))
        series = series.beside
    if ts > watermark:
        newest = ts if ts < delivery else delivery
        if newest > watermark:
            state.watermark = newest
    if not opened and late is None and state.watermark < state.closes:
        return NOTHING
    return _finish(state, definitions, [], late or (), opened)


def expire(state: DeviceWindows, clock: int, definitions: Definitions) -> Folded:
    """Close what the device's silence closes at `clock`, the partition's (ms), and say when to look again."""
    closed = _adopt(state, definitions) if state.definitions != definitions.digest else []
    heard = state.heard
    _close(state, definitions, closed, lambda window: clock if clock >= heard + window.idle else NEVER)
    return Folded(_in_order(closed))


def _begin(state: DeviceWindows, key: str, ts: int, watermark: int, definitions: Definitions) -> Series:
    """The series of a key that has none yet; they are kept if a window takes the point."""
    windows = definitions.of_key(key)
    first = beside([_fresh(window) for window in windows])
    if any(ts - ts % w.hop + w.size > watermark - w.lateness for w in windows):
        state.put(key, first)
    return first


def _fresh(window: Window) -> Series:
    return Series(window.name, window.size, window.hop, NUMBERS[window.aggregate])


def _place(
    state: DeviceWindows, series: Series, ts: int, value: float, watermark: int, definitions: Definitions
) -> tuple[bool, bool]:
    """A point that is not in the pane in hand: whether it missed a window, and whether it opened a pane."""
    window = definitions.by_name[series.window]
    missed, opened = panes.place(series, ts, value, watermark - window.lateness)
    if opened:
        _expect(state, series, window)
    return missed, opened


def _expect(state: DeviceWindows, series: Series, window: Window) -> None:
    """Have the state look no later than at what comes next of a series."""
    first = panes.first_end(series)
    if first < FAR:
        if first + window.lateness < state.closes:
            state.closes = first + window.lateness
        due = max(state.heard + window.idle, first)
        if due < state.due:
            state.due = due


def _finish(
    state: DeviceWindows, definitions: Definitions, closed: list[Closed], late: Sequence[Late], opened: bool
) -> Folded:
    """Close what the watermark closes, and what is beyond the bound of open windows."""
    watermark = state.watermark
    if watermark >= state.closes:
        _close(state, definitions, closed, lambda window: watermark - window.lateness)
    if opened and (beyond := _count(state) - MAX_OPEN) > 0:
        _close_earliest(state, definitions, closed, beyond)
    return Folded(_in_order(closed), late)


def _close(
    state: DeviceWindows, definitions: Definitions, closed: list[Closed], limit: Callable[[Window], int]
) -> None:
    """Close the windows that end at or before each definition's limit; work out anew what comes next."""
    crowded = (
        state.more is not None
        and (1 + len(state.more)) * len(definitions.by_name) > MAX_IDLE_SERIES
        and sum(1 for _, known in state.items() for _ in known.all()) > MAX_IDLE_SERIES
    )
    state.closes = state.due = FAR
    idle: set[str] = set()
    for key, known in state.items():
        needed = False
        for series in known.all():
            window = definitions.by_name[series.window]
            panes.close(series, key, limit(window), closed)
            _expect(state, series, window)
            if crowded and (series.count or series.floor + window.lateness > state.watermark):
                needed = True
        if crowded and not needed:
            idle.add(key)  # the watermark says the same, as long as the definition stays what it is
    if idle:
        state.keep({key: known for key, known in state.items() if key not in idle})


def _close_earliest(state: DeviceWindows, definitions: Definitions, closed: list[Closed], beyond: int) -> None:
    """Close windows until at least `beyond` panes, those that end first, are needed no more."""
    ends = sorted(
        pane.end - series.hop + series.size
        for _, known in state.items()
        for series in known.all()
        for pane in panes.all_panes(series)
    )
    last = ends[beyond - 1]
    _close(state, definitions, closed, lambda window: last)


def _adopt(state: DeviceWindows, definitions: Definitions) -> list[Closed]:
    """Go over to other definitions: windows of a changed or vanished one are closed as they are.

    The changed one's first window starts at or after the end of the last of them, so that no two
    windows of a name and key have the same start, which is their identity.
    """
    closed: list[Closed] = []
    adopted: dict[str, Series] = {}
    for key, known in state.items():
        before = {series.window: series for series in known.all()}
        series_now = [
            _adopted(key, before.pop(window.name, None), window, closed) for window in definitions.of_key(key)
        ]
        for vanished in before.values():
            panes.close(vanished, key, FAR, closed)
        if series_now:
            adopted[key] = beside(series_now)
    state.definitions = definitions.digest
    state.keep(adopted)
    # Lateness and idle time may have changed: work out anew what is closed and what comes next.
    watermark = state.watermark
    _close(state, definitions, closed, lambda window: watermark - window.lateness)
    return closed


def _adopted(key: str, old: Series | None, window: Window, closed: list[Closed]) -> Series:
    new = _fresh(window)
    if old is None:
        return new
    if (old.size, old.hop, old.aggregate) == (new.size, new.hop, new.aggregate):
        return old
    panes.close(old, key, FAR, closed)
    new.floor = old.floor + -old.floor % new.hop + new.size - new.hop
    return new


def _in_order(closed: list[Closed]) -> Sequence[Closed]:
    return sorted(closed, key=lambda c: (c.end, c.window, c.key)) if len(closed) > 1 else closed


def _count(state: DeviceWindows) -> int:
    count = 0
    for _, known in state.items():
        series: Series | None = known
        while series is not None:
            count += len(series.others) + (series.count > 0)
            series = series.beside
    return count

"""The panes of one series: a point into its pane, and panes into the windows that close."""

from __future__ import annotations

from bisect import bisect_left, insort
from functools import lru_cache, reduce
from operator import attrgetter

import msgspec

from tpstream.windows.aggregates import ADD, AGGREGATES, NAMES, Growing, Part
from tpstream.windows.state import FAR, Pane, Series

_KINDS = tuple(AGGREGATES.values())
_end = attrgetter("end")


class Closed(msgspec.Struct, frozen=True, gc=False):
    """A closed window, each once."""

    window: str
    key: str
    start: int
    end: int
    aggregate: str
    value: float | None
    """None: the points have none (`stddevSamp` of a single one)."""
    count: int


def place(series: Series, ts: int, value: float, passed: int) -> tuple[bool, bool]:
    """Fold a point that is not in the pane in hand; its pane is in hand then, unless the point is late.

    Windows that end at or before `passed` are closed to it. Whether it missed one of its windows
    (it is in no pane if it missed all), and whether it opened a pane.
    """
    hop = series.hop
    end = ts - ts % hop + hop
    shut = passed if passed > series.floor else series.floor
    if end <= shut:
        if end - hop + series.size <= shut:
            return True, False
        if passed > series.floor:
            series.floor = passed - passed % hop  # the pane is for the windows after these alone
        return True, _amend(series, end, ts, value)
    others = series.others
    at = bisect_left(others, end, key=_end)
    found = others[at] if at < len(others) and others[at].end == end else None
    if others or series.count:
        rest = list(others)
        if found is not None:
            del rest[at]
        if series.count:
            insort(rest, Pane(series.end, series.count, series.a, series.b), key=_end)
        series.others = tuple(rest)
    series.start, series.end = _bounds(end, hop)
    if found is None:
        part = _KINDS[series.aggregate].begin(value, ts)
        series.count, series.a, series.b = part.count, part.a, part.b
        return False, True
    series.count, series.a, series.b = found.count + 1, found.a, found.b
    ADD[series.aggregate](series, value, ts)
    return False, False


def _amend(series: Series, end: int, ts: int, value: float) -> bool:
    """Fold a point into a pane that stays out of hand, so that the next one is found late as well."""
    aggregate, others = _KINDS[series.aggregate], series.others
    part = aggregate.begin(value, ts)
    at = bisect_left(others, end, key=_end)
    found = others[at] if at < len(others) and others[at].end == end else None
    if found is not None:
        part = aggregate.merge(Part(found.count, found.a, found.b), part)
    pane = Pane(end, part.count, part.a, part.b)
    series.others = (*others[:at], pane, *others[at + (found is not None) :])
    return found is None


def first_end(series: Series) -> int:
    """The end of the first window that is open, or FAR."""
    first = series.end if series.count else FAR
    if series.others and series.others[0].end < first:
        first = series.others[0].end
    after = series.floor + series.hop
    return first if first >= after else after


def close(series: Series, key: str, limit: int, closed: list[Closed]) -> None:
    """Close the open windows that end at or before `limit`; panes that no open window needs go with them."""
    size, hop = series.size, series.hop
    if size == hop:
        _close_tumbling(series, key, limit, closed)
        return
    if first_end(series) > limit:
        return
    panes, merge = all_panes(series), _KINDS[series.aggregate].merge
    low, high, count = 0, 0, len(panes)
    while low < count:
        end = max(panes[low].end, series.floor + hop)
        if end > limit:
            break
        while high < count and panes[high].end <= end:
            high += 1
        part = reduce(merge, (Part(pane.count, pane.a, pane.b) for pane in panes[low:high]))
        closed.append(_closed(series, key, end, part))
        series.floor = end
        while low < count and panes[low].end <= end - size + hop:
            low += 1
    left = panes[low:]
    if left and left[-1].end > series.floor:
        last = left.pop()
        series.start, series.end = last.end - hop, last.end
        series.count, series.a, series.b = last.count, last.a, last.b
    else:
        series.start = series.end = series.count = 0
        series.a = series.b = 0.0
    series.others = tuple(left)


def _close_tumbling(series: Series, key: str, limit: int, closed: list[Closed]) -> None:
    """The same where each pane is a window: there is nothing to merge or to keep."""
    others, gone = series.others, 0
    for pane in others:
        if pane.end > limit:
            break
        closed.append(_closed(series, key, pane.end, pane))
        gone += 1
    if gone:
        series.floor = max(series.floor, others[gone - 1].end)
        series.others = others[gone:]
    if series.count and series.end <= limit:
        closed.append(_closed(series, key, series.end, series))
        series.floor = max(series.floor, series.end)
        series.start = series.end = series.count = 0
        series.a = series.b = 0.0


def all_panes(series: Series) -> list[Pane]:
    """By rising end."""
    panes = list(series.others)
    if series.count:
        insort(panes, Pane(series.end, series.count, series.a, series.b), key=_end)
    return panes


def _closed(series: Series, key: str, end: int, part: Growing | Part | Pane) -> Closed:
    value = _KINDS[series.aggregate].value(part.count, part.a, part.b)
    return Closed(series.window, key, end - series.size, end, NAMES[series.aggregate], value, part.count)


@lru_cache(maxsize=4_096)
def _bounds(end: int, hop: int) -> tuple[int, int]:
    """Where a pane begins and ends: the same two objects for all series, not two for each in memory."""
    return end - hop, end

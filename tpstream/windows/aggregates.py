"""The aggregates: how values become one, a value at a time, and two parts become one.

A part is a count and two numbers, `a` and `b`, which each aggregate uses in its own way; so a
window in hand is changed in place by a few assignments, whatever it computes. A new aggregate
is one more entry at the end of `AGGREGATES`; one that needs more than two numbers (a quantile
sketch) would give `Part` a further field.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple, Protocol

import msgspec


class Part(msgspec.Struct, frozen=True, gc=False):
    """What an aggregate remembers of some points."""

    count: int
    a: float
    b: float = 0.0


class Growing(Protocol):
    """A part that is changed in place. `count` has the new value in it already."""

    count: int
    a: float
    b: float


class Aggregate(NamedTuple):
    """The four functions of one aggregate. `ts` is the point's time, ms."""

    begin: Callable[[float, int], Part]
    add: Callable[[Growing, float, int], None]
    merge: Callable[[Part, Part], Part]
    """The first is of what arrived first, or of the earlier points."""
    value: Callable[[int, float, float], float | None]
    """Of a count, a and b. None: these points have no such value."""


def _itself(value: float, ts: int) -> Part:
    return Part(1, value)


def _timed(value: float, ts: int) -> Part:
    return Part(1, value, ts)


def _add(part: Growing, value: float, ts: int) -> None:
    part.a += value


def _add_least(part: Growing, value: float, ts: int) -> None:
    if value < part.a:
        part.a = value


def _add_greatest(part: Growing, value: float, ts: int) -> None:
    if value > part.a:
        part.a = value


# At the same time the first to arrive stays, as in the store (docs/protocol.md).


def _add_first(part: Growing, value: float, ts: int) -> None:
    if ts < part.b:
        part.a, part.b = value, ts


def _add_last(part: Growing, value: float, ts: int) -> None:
    if ts > part.b:
        part.a, part.b = value, ts


def _add_moment(part: Growing, value: float, ts: int) -> None:
    # Welford: a is the mean, b the sum of squared distances from it. A sum of squares would lose
    # all digits where the mean is large and the spread small.
    distance = value - part.a
    part.a += distance / part.count
    part.b += distance * (value - part.a)


def _merged_moments(one: Part, other: Part) -> Part:
    count = one.count + other.count
    distance = other.a - one.a
    return Part(
        count,
        one.a + distance * other.count / count,
        one.b + other.b + distance * distance * one.count * other.count / count,
    )


def _only_a(count: int, a: float, b: float) -> float:
    return a


def _sum(value: Callable[[int, float, float], float | None]) -> Aggregate:
    return Aggregate(_itself, _add, lambda one, other: Part(one.count + other.count, one.a + other.a), value)


def _extreme(add: Callable[[Growing, float, int], None], better: Callable[[float, float], float]) -> Aggregate:
    return Aggregate(_itself, add, lambda one, other: Part(one.count + other.count, better(one.a, other.a)), _only_a)


def _by_time(add: Callable[[Growing, float, int], None], other_wins: Callable[[float, float], bool]) -> Aggregate:
    def merge(one: Part, other: Part) -> Part:
        kept = other if other_wins(other.b, one.b) else one
        return Part(one.count + other.count, kept.a, kept.b)

    return Aggregate(_timed, add, merge, _only_a)


def _spread(divisor: Callable[[int], int]) -> Aggregate:
    return Aggregate(
        _itself,
        _add_moment,
        _merged_moments,
        lambda count, a, b: sqrt(b / divisor(count)) if divisor(count) else None,
    )


AGGREGATES: dict[str, Aggregate] = {
    "mean": _sum(lambda count, a, b: a / count),
    "sum": _sum(_only_a),
    "count": _sum(lambda count, a, b: float(count)),
    "min": _extreme(_add_least, min),
    "max": _extreme(_add_greatest, max),
    "first": _by_time(_add_first, lambda other, one: other < one),
    "last": _by_time(_add_last, lambda other, one: other > one),
    # ClickHouse's names, so that nobody has to guess which of the two is meant.
    "stddevSamp": _spread(lambda count: count - 1),
    "stddevPop": _spread(lambda count: count),
}
"""In stored values an aggregate is its number here: append only."""

NAMES = tuple(AGGREGATES)
NUMBERS = {name: number for number, name in enumerate(NAMES)}
ADD = tuple(aggregate.add for aggregate in AGGREGATES.values())

SUMMED = 3
"""The aggregates below this number only add up `a`: folds do that in place, without a call."""

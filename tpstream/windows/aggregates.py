"""The aggregates: how values become one, a value at a time, and two parts become one.

An accumulator is a tuple of numbers, so that it is stored as it is, and replaced, never
changed. Each aggregate says how one begins, grows, merges with another, and what it is worth.
A new one (a variance, a quantile sketch) is one more entry in `AGGREGATES`, and its word in
`tpstream.windows.definition.AGGREGATES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Accumulator = tuple[float, ...]


class Aggregate(NamedTuple):
    """The four functions of one aggregate. `ts` is the point's time, ms."""

    begin: Callable[[float, int], Accumulator]
    add: Callable[[Accumulator, float, int], Accumulator]
    merge: Callable[[Accumulator, Accumulator], Accumulator]
    """Of the same aggregate; the first holds what arrived first."""
    value: Callable[[Accumulator, int], float]
    """From the accumulator and the number of points that went into it."""


def _itself(value: float, ts: int) -> Accumulator:
    return (value,)


def _timed(value: float, ts: int) -> Accumulator:
    return (value, ts)


def _add(acc: Accumulator, value: float, ts: int) -> Accumulator:
    return (acc[0] + value,)


def _only(acc: Accumulator, count: int) -> float:
    return acc[0]


def _sum() -> Aggregate:
    return Aggregate(_itself, _add, lambda a, b: (a[0] + b[0],), _only)


AGGREGATES: dict[str, Aggregate] = {
    "mean": _sum()._replace(value=lambda acc, count: acc[0] / count),
    "sum": _sum(),
    "min": Aggregate(
        _itself, lambda acc, value, ts: (value,) if value < acc[0] else acc, lambda a, b: min(a, b), _only
    ),
    "max": Aggregate(
        _itself, lambda acc, value, ts: (value,) if value > acc[0] else acc, lambda a, b: max(a, b), _only
    ),
    "count": Aggregate(
        lambda value, ts: (), lambda acc, value, ts: acc, lambda a, b: a, lambda acc, count: float(count)
    ),
    # At the same time the first to arrive stays, as in the store (docs/protocol.md).
    "first": Aggregate(
        _timed,
        lambda acc, value, ts: (value, ts) if ts < acc[1] else acc,
        lambda a, b: b if b[1] < a[1] else a,
        _only,
    ),
    "last": Aggregate(
        _timed,
        lambda acc, value, ts: (value, ts) if ts > acc[1] else acc,
        lambda a, b: b if b[1] > a[1] else a,
        _only,
    ),
}

"""When keys want attention: an index over the values, in buckets of a second.

A bucket costs a reference a key, where a heap of exact times costs three objects; there is one of
those for the second at hand alone. A write that moves a value's time on leaves its timer where it
is; only when that comes to the head is it moved: a value is written far more often than it is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from tpstream.bus.cell import Cell
from tpstream.bus.stored import NEVER

BUCKET_MS = 1_000


class Timers:
    """The timers of one table partition. A key may stand in several places: `Cell.armed` says which counts.

    `cell` gives a key's cell, from disk if need be; `due` says of a value when it wants attention.
    """

    def __init__(self, cell: Callable[[str], Cell], due: Callable[[Any], int | None] | None) -> None:
        self._cell = cell
        self._due = due
        self._buckets: dict[int, list[str]] = {}
        self._heads: list[int] = []
        self._soon: list[tuple[int, str]] = []
        self._until = 0
        """Timers before this clock are in `_soon`, a heap of exact times, and not in a bucket."""

    def arm(self, cell: Cell, at: int) -> None:
        """Set a cell's timer."""
        cell.armed = at
        self.remind(at, cell.key)

    def remind(self, at: int, key: str) -> None:
        """Have a key looked at at this clock; its cell, where it is in memory, is armed there."""
        if at < self._until:
            heapq.heappush(self._soon, (at, key))
            return
        number = at // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [key]
            heapq.heappush(self._heads, number)
        else:
            bucket.append(key)

    def next(self) -> int | None:
        """The clock at which the next value is due, or None."""
        while (at := self._first()) is None:
            if not self._heads:
                return None
            self._look_into_the_next_bucket()
        return at

    def quiet_until(self) -> int:
        """A clock before which no value is due, at most a bucket too early, or NEVER."""
        if (at := self._first()) is not None:
            return at
        return self._heads[0] * BUCKET_MS if self._heads else NEVER

    def pop(self, clock: int) -> Cell | None:
        """The cell that is due first, at or before the clock, or None. Its timer is gone."""
        while (at := self._first()) is None:
            if not self._heads or self._heads[0] * BUCKET_MS > clock:
                return None
            self._look_into_the_next_bucket()
        return self._cell(heapq.heappop(self._soon)[1]) if at <= clock else None

    def _look_into_the_next_bucket(self) -> None:
        """Take its exact times."""
        number = self._heads[0]
        exact = []
        for key in self._buckets[number]:  # it goes when all were read: the disk may fail
            armed = self._cell(key).armed
            if armed // BUCKET_MS == number:  # else an earlier one was armed since, or it is done
                exact.append((armed, key))
        if self._heads[0] != number:
            return  # by another rule than it was stored by, one of them is due earlier: its bucket is the next
        del self._buckets[heapq.heappop(self._heads)]
        self._until = (number + 1) * BUCKET_MS
        self._soon += exact
        heapq.heapify(self._soon)

    def _first(self) -> int | None:
        """The first of the exact times, brought up to date, or None."""
        soon, due = self._soon, self._due
        while soon:
            at, key = soon[0]
            cell = self._cell(key)
            actual = None if cell.value is None or due is None else due(cell.value)
            if cell.armed == at == actual:
                return at
            heapq.heappop(soon)
            if cell.armed == at:  # else an earlier one was armed since, or it is done
                cell.armed = NEVER
                if actual is not None:
                    self.arm(cell, actual)
        return None

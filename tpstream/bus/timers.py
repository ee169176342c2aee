"""When keys want attention: an index over the values, in buckets of a second.

A bucket costs a reference a key, where a heap of exact times costs three objects; the table
keeps one of those for the second at hand alone. A write that moves a value's time on leaves its
timer where it is; only when that comes to the head is it moved: a value is written far more
often than it is due.
"""

from __future__ import annotations

import heapq

BUCKET_MS = 1_000


class Timers:
    """Keys by the second in which they may be due. A key may stand in several: its owner knows which counts."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._heads: list[int] = []

    def add(self, at: int, key: str) -> None:
        """Have a key looked at when its bucket comes to the head."""
        number = at // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [key]
            heapq.heappush(self._heads, number)
        else:
            bucket.append(key)

    def head(self) -> int | None:
        """The number of the earliest bucket, or None."""
        return self._heads[0] if self._heads else None

    def keys(self, number: int) -> list[str]:
        """The keys of a bucket."""
        return self._buckets[number]

    def pop(self) -> list[str]:
        """The keys of the earliest bucket, which is gone."""
        return self._buckets.pop(heapq.heappop(self._heads))

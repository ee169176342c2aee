"""Where a record stands, and where it first arrived."""

from __future__ import annotations

from typing import NamedTuple, NewType

Life = NewType("Life", bytes)
"""The 16 bytes of the UUID of one life of the topics; an offset means something only within it."""

NO_LIFE = Life(bytes(16))


class Position(NamedTuple):
    """A place in the raw topic. Ordered within one life and partition; never across them."""

    life: Life
    partition: int
    offset: int
    item: int = 0

    def at(self, item: int) -> Position:
        """The same record's element number `item`."""
        return Position(self.life, self.partition, self.offset, item)

    def identity(self) -> str:
        """A text that no other position has: the stem of ids of rows, alarms and commands."""
        return f"{self.life.hex()[:12]}-{self.partition}-{self.offset}-{self.item}"

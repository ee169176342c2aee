"""How far a lane topic's partition is: fetched, done by each agent, committed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

Place = tuple[str, int]
"""A topic's name and a partition."""


@dataclass(slots=True)
class Progress:
    """How far one lane topic partition is. Offsets are those of the next record."""

    fetched: int = -1
    """-1: nothing yet."""
    done: dict[str, int] = field(default_factory=dict)
    """By agent."""
    committed: int = -1
    buffered: int = 0
    """Records fetched and not yet done by every agent; `bytes` is their size."""
    bytes: int = 0
    lists: deque[tuple[int, int, int]] = field(default_factory=deque)
    """Of each fetched list not yet done: its end offset, records, bytes."""
    clock: int = 0
    """Timestamp of the newest record fetched, ms; it does not go back."""
    moved_at: float = 0.0
    """Monotonic time of the last progress."""
    behind_since: float = 0.0
    """Monotonic time since when there is something left to do; 0: there is nothing."""

    def look(self, lag: int, now: float) -> None:
        """Note whether the partition is behind its end."""
        self.behind_since = (self.behind_since or now) if lag else 0.0

    def stalled(self, seconds: float, now: float) -> bool:
        """Whether it has been behind for so long and has not moved."""
        return bool(self.behind_since) and min(now - self.behind_since, now - self.moved_at) > seconds

    def acknowledged(self) -> int:
        """The offset below which every agent is done, or -1."""
        return min(self.done.values(), default=-1)

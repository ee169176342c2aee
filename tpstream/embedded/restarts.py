"""How often a part may die: restart with backoff, and give up on one that keeps dying."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

LIMIT = 5
"""Deaths within `WITHIN` seconds after which a part is given up."""

WITHIN = 60.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 8.0


@dataclass(slots=True)
class Restarts:
    """The deaths of one part; times are seconds of one clock, whichever the caller reads."""

    deaths: deque[float] = field(default_factory=deque)

    def died(self, now: float) -> float | None:
        """Seconds to wait before the part is started again, or None: it keeps dying."""
        while self.deaths and now - self.deaths[0] >= WITHIN:
            self.deaths.popleft()
        self.deaths.append(now)
        if len(self.deaths) >= LIMIT:
            return None
        return float(min(FIRST_DELAY * 2 ** (len(self.deaths) - 1), LONGEST_DELAY))


def allowance(remaining: float, share: float, later: float) -> float:
    """Seconds that a part may take to stop, out of those that remain for it and the later ones.

    What an earlier part did not need is there for the later ones.
    """
    return max(0.0, remaining) * share / (share + later)

"""How long to wait before trying again."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def backoff(random: Random, first: float = 0.5, most: float = 15.0) -> Iterator[float]:
    """Waits in seconds for ever: doubling up to `most`, each drawn from its upper half.

    Drawn, so that a whole fleet that lost its broker at once does not come back at once.
    """
    wait = first
    while True:
        yield random.uniform(wait / 2, wait)
        wait = min(most, wait * 2)

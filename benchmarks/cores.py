"""One core for what is measured, another for the broker, the store and whoever measures."""

from __future__ import annotations

import os
from collections.abc import Callable

_CORES = sorted(os.sched_getaffinity(0))
SUBJECT = {_CORES[0]}
BROKER = set(_CORES[1:]) or {_CORES[0]}
"""The other cores; on a machine of one, the same, which figures then say."""

APART = SUBJECT != BROKER


def pin(cores: set[int], then: Callable[[], object] | None = None) -> Callable[[], None]:
    """For `preexec_fn`: run the new process and its children on these cores, then call `then`."""

    def act() -> None:
        os.sched_setaffinity(0, cores)
        if then is not None:
            then()

    return act


def load() -> float:
    """The machine's load average over the last minute."""
    return round(os.getloadavg()[0], 1)

"""`tpstream worker` of one role.   ROLE AGENT…; settings from the environment

A thread beside it says how many messages the slowest of the named agents has done, as /metrics does;
for `store`, how many points it has taken.
"""

from __future__ import annotations

import logging
import sys

from benchmarks.subjects.progress import Progress
from tpstream.observability import metrics
from tpstream.settings import Settings
from tpstream.worker import run


def main(role: str, *agents: str) -> None:
    """Until it is stopped."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if role == "store":
        points = metrics.POINTS.labels("store")
        Progress(lambda: int(points._value.get()))
    else:
        counters = [metrics.MESSAGES.labels(agent) for agent in agents]
        Progress(lambda: int(min(counter._value.get() for counter in counters)))
    run(Settings.load(roles=role))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`tpstream worker --roles process` with one window over a topic of readings.   BOOTSTRAP TOPIC FOLDER

The worker is the public one, with all its agents; a thread beside it says how many messages the busiest
of them has done, as /metrics does.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from benchmarks.platform import free_ports
from benchmarks.readings import PARTITIONS
from benchmarks.subjects.decoders import Reading
from benchmarks.subjects.progress import Progress
from tpstream.app import app
from tpstream.observability import metrics
from tpstream.settings import Settings
from tpstream.worker import run


def _busiest() -> int:
    """Messages done by the agent that has done most."""
    samples = [s for metric in metrics.MESSAGES.collect() for s in metric.samples if s.name.endswith("_total")]
    return int(max((sample.value for sample in samples), default=0))


def main(bootstrap: str, topic: str, folder: str) -> None:
    """Until it is stopped."""
    readings = app.topic(topic, Reading)
    name = topic.rpartition(".")[2]
    app.window(name, key="temperature", topic=readings, time="ts", size="10s", aggregate="mean")
    web, other, store = free_ports(3)
    logging.basicConfig(level=logging.WARNING)
    Progress(_busiest)
    run(
        Settings(
            kafka=bootstrap,
            partitions=PARTITIONS,
            data_dir=Path(folder),
            roles="process",
            web_port=web,
            worker_web_port=other,
            store_port=store,
            bridge_web_host="-",
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:4])

"""(a) The lane alone beside bare aiokafka and stock Faust: the same records on Apache Kafka, one core each."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.broker import Broker
from benchmarks.figure import Figure
from benchmarks.readings import PARTITIONS, Load
from benchmarks.subject import Subject

COUNT, FAUST = 3_000_000, 300_000
"""Messages; stock Faust reads fewer, as it takes longer."""

CONTENDERS = (
    ("bare aiokafka getmany, orjson", "benchmarks.subjects.bare", "orjson"),
    ("bare aiokafka getmany, msgspec", "benchmarks.subjects.bare", "msgspec"),
    ("lane, orjson", "benchmarks.subjects.lane", "orjson"),
    ("lane, msgspec", "benchmarks.subjects.lane", "msgspec"),
    ("stock Faust, orjson", "benchmarks.peers.faust_lane", "orjson"),
)


def run() -> Iterator[Figure]:
    """A broker of its own, the load in it, then each contender."""
    with Broker() as broker:
        load = Load("bench.readings.lane", 1_000, COUNT, 100)
        broker.make(load.topic, PARTITIONS)
        load.write(broker.bootstrap)
        bare: dict[str, float] = {}
        for name, module, decoder in CONTENDERS:
            folder = broker.folder / f"{module}-{decoder}"
            folder.mkdir()
            command = [sys.executable, "-m", module, broker.bootstrap, load.topic, str(folder), decoder]
            count = FAUST if "Faust" in name else COUNT
            with Subject(command, folder / "log") as subject:
                m = subject.measure(count)
            bare.setdefault(decoder, m.cpu_us)
            yield Figure(
                bench=f"lane: {name}",
                value=m.rate,
                unit="msg/s",
                peer=f"bare aiokafka getmany, {decoder}",
                ratio=round(bare[decoder] / m.cpu_us, 3),
                cpu_us_per_message=m.cpu_us,
                note=f"{m.messages} messages of 159 B; ratio: the peer's CPU by this one's; load average {m.load}",
            )

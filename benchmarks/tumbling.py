"""(b, c) A ten-second tumbling mean per device, beside stock Faust, Quix Streams and Kafka Streams.

Everybody reads plain JSON, keeps sum and count per device and window on RocksDB with a changelog, and
says its results on a topic. What it found is compared with a computation over the numbers of
the load, window by window: a contender that found anything else has no figure.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from benchmarks import cores
from benchmarks.broker import Broker
from benchmarks.figure import Figure
from benchmarks.peers import environment
from benchmarks.readings import PARTITIONS, Load
from benchmarks.subject import Subject

Found = dict[tuple[str, int], float]
"""The mean by device and start of the window, ms."""

HERE = Path(__file__).parent
LAST_SECONDS = 40.0
"""For the results of the last windows to arrive, after the last message was read."""

LOADS = (
    Load("bench.readings.10hz", 1_000, 3_000_000, 100),
    Load("bench.readings.1hz", 1_000, 2_000_000, 1_000),
    Load("bench.readings.many", 100_000, 4_000_000, 1_000),
)
FAUST = Load("bench.readings.faust", 1_000, 200_000, 100)
QUIX = Load("bench.readings.quix", 1_000, 1_500_000, 100)
"""Fewer, as these take longer; Quix Streams more than a million, as it makes no checkpoint before 5 s have passed."""


def tpstream(load: Load, broker: Broker, folder: Path) -> tuple[Sequence[str], Mapping[str, str], float]:
    """A worker of role process with benchmarks/tumbling_application: the public window API."""
    command = [sys.executable, "-m", "benchmarks.subjects.worker", broker.bootstrap, load.topic, str(folder)]
    return command, {}, 0.1


def faust(load: Load, broker: Broker, folder: Path) -> tuple[Sequence[str], Mapping[str, str], float]:
    """Stock Faust, in this environment."""
    return (
        [sys.executable, "-m", "benchmarks.peers.faust_tumbling", broker.bootstrap, load.topic, str(folder)],
        {},
        0.1,
    )


def quix(load: Load, broker: Broker, folder: Path) -> tuple[Sequence[str], Mapping[str, str], float]:
    """Quix Streams, in the peers' environment."""
    script = str(HERE / "peers" / "quix_tumbling.py")
    command = [environment.python(), script, broker.bootstrap, load.topic, str(folder)]
    return command, {"PYTHONPATH": str(HERE / "subjects")}, 0.1


def streams(load: Load, broker: Broker, folder: Path) -> tuple[Sequence[str], Mapping[str, str], float]:
    """Kafka Streams; a third of its messages are left to the compiler."""
    return [*environment.streams(), broker.bootstrap, load.topic, str(folder)], {}, 0.33


def _tpstream_found(broker: Broker, load: Load) -> Found:
    found: Found = {}
    for record in broker.records("tp.windows.v1", PARTITIONS):
        if record.value and record.key:
            result = orjson.loads(record.value)
            if result["window"] == load.topic.rpartition(".")[2]:
                found[result["device"], result["start"]] = result["value"]
    return found


def _faust_found(broker: Broker, load: Load) -> Found:
    found: Found = {}
    for record in broker.records("bench-faust-tumbling-means-changelog", PARTITIONS):
        if record.value:
            device, (start, _) = orjson.loads(record.key)
            total, count = orjson.loads(record.value)
            found[device, round(start * 1000)] = total / count
    return found


def _quix_found(broker: Broker, load: Load) -> Found:
    found: Found = {}
    for record in broker.records("bench-quix-results", PARTITIONS):
        result = orjson.loads(record.value)
        found[record.key.decode(), result["start"]] = result["value"]
    return found


def _streams_found(broker: Broker, load: Load) -> Found:
    found: Found = {}
    for record in broker.records("bench-streams-results", PARTITIONS):
        device, start = record.key.decode().split()
        found[device, int(start)] = float(record.value)
    return found


Start = Callable[[Load, Broker, Path], tuple[Sequence[str], Mapping[str, str], float]]
Read = Callable[[Broker, Load], Found]

CONTENDERS: dict[str, tuple[Start, Read, str | None]] = {
    "tpstream": (tpstream, _tpstream_found, None),
    "Kafka Streams 4.3.1": (streams, _streams_found, "bench-streams-results"),
    "Quix Streams 3.28.1": (quix, _quix_found, "bench-quix-results"),
    "stock Faust 0.15.3": (faust, _faust_found, None),
}


def run() -> Iterator[Figure]:
    """A broker of its own for each load, so that nobody finds another's topics, groups or page cache."""
    wanted = os.environ.get("BENCH_ONLY", "")
    for load, names in (
        (LOADS[0], ("tpstream", "Kafka Streams 4.3.1")),
        (LOADS[1], ("tpstream", "Kafka Streams 4.3.1")),
        (LOADS[2], ("tpstream", "Kafka Streams 4.3.1")),
        (QUIX, ("Quix Streams 3.28.1",)),
        (FAUST, ("stock Faust 0.15.3",)),
    ):
        chosen = [name for name in names if wanted.lower() in name.lower()]
        if not chosen:
            continue
        with Broker() as broker:
            broker.make(load.topic, PARTITIONS)
            load.write(broker.bootstrap)
            for name in chosen:
                yield contend(name, load, broker)


def contend(name: str, load: Load, broker: Broker) -> Figure:
    """One contender on one load; a figure of 0 with the reason where it cannot run or found something else."""
    start, read, results = CONTENDERS[name]
    folder = broker.folder / name.partition(" ")[0] / load.topic
    folder.mkdir(parents=True)
    per_window = 10_000 // load.step
    bench = f"tumbling mean, {load.devices} devices, {per_window} a window: {name}"
    try:
        command, environ, warm = start(load, broker, folder / "state")
        if results is not None:
            broker.make(results, PARTITIONS)
        with Subject(command, folder / "log", environ) as subject:
            m = subject.measure(load.total, warm)
            wrong = _settled(lambda: load.wrong(read(broker, load)))
    except RuntimeError as error:
        return Figure(bench=bench, value=0, unit="msg/s", note=f"no figure: {error}")
    if wrong:
        return Figure(bench=bench, value=0, unit="msg/s", note=f"void: {wrong}")
    return Figure(
        bench=bench,
        value=m.rate,
        unit="msg/s",
        cpu_us_per_message=m.cpu_us,
        note=f"{m.messages} of {load.total} messages in {m.seconds} s, all windows as computed independently, "
        f"RSS {m.rss_mb:.0f} MB, {'one core' if cores.APART else 'beside the broker on the only core'}, "
        f"load average {m.load}",
    )


def _settled(wrong: Callable[[], str]) -> str:
    """What is wrong once it is nothing, or once the results had time to arrive."""
    deadline = time.monotonic() + LAST_SECONDS
    while (said := wrong()) and time.monotonic() < deadline:
        time.sleep(2.0)
    return said

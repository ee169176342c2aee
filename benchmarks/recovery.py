"""(e, f) A table of a million keys: filled, then lost and read back from its changelog, then found on disk.

Beside it stock Faust with fewer keys. tpstream is told to keep 50,000 of its keys in memory (TPSTREAM_TABLE_KEYS).
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.broker import Broker
from benchmarks.cores import load as load_average
from benchmarks.figure import Figure
from benchmarks.parts import said
from benchmarks.readings import PARTITIONS, Load
from benchmarks.subject import Subject, cpu_seconds, rss_mb

KEYS, FAUST_KEYS = 1_000_000, 100_000
CHECKPOINT_SECONDS = 10.0
"""For the last checkpoint, or Faust's last commit, before it is stopped."""
PATIENCE = 240.0


def run() -> Iterator[Figure]:
    """tpstream, then stock Faust."""
    with Broker() as broker:
        load = Load("bench.readings.keys", KEYS, KEYS, 1_000)
        broker.make(load.topic, PARTITIONS)
        load.write(broker.bootstrap)
        yield from _recover(broker, load, "tpstream", "benchmarks.subjects.table", r"in ([\d.]+) s")
        fewer = Load("bench.readings.faust", FAUST_KEYS, FAUST_KEYS, 1_000)
        broker.make(fewer.topic, PARTITIONS)
        fewer.write(broker.bootstrap)
        yield from _recover(broker, fewer, "stock Faust 0.15.3", "benchmarks.peers.faust_table", r"in ([\d.]+) s")


def _recover(broker: Broker, load: Load, name: str, module: str, seconds: str) -> Iterator[Figure]:
    folder = broker.folder / module
    folder.mkdir()
    state = folder / "state"
    command = [sys.executable, "-m", module, broker.bootstrap, load.topic, str(state)]
    with Subject(command, folder / "filled.log") as subject:
        m = subject.measure(load.total)
        time.sleep(CHECKPOINT_SECONDS)
        yield Figure(
            bench=f"table of {load.devices} keys, two updates each: {name}",
            value=m.rate,
            unit="msg/s",
            cpu_us_per_message=m.cpu_us,
            note=f"RSS {rss_mb(subject.process.pid):.0f} MB, load average {m.load}",
        )
    for where in ("changelog", "disk"):
        if where == "changelog":
            shutil.rmtree(state)
        log = folder / f"{where}.log"
        with Subject(command, log) as subject:
            took = _said(log, seconds)
            if took is None:
                yield Figure(bench=f"recovery from {where}: {name}", value=0, unit="keys/s", note="no figure: silent")
                continue
            pid = subject.process.pid
            yield Figure(
                bench=f"recovery from {where}: {name}",
                value=round(load.devices / took) if took and where == "changelog" else took,
                unit="keys/s" if where == "changelog" else "s",
                note=f"{load.devices} keys in {took} s, CPU since start {cpu_seconds(pid):.1f} s, "
                f"RSS {rss_mb(pid):.0f} MB, load average {load_average()}",
            )


def _said(log: Path, seconds: str) -> float | None:
    """How long recovery took by the contender's own word."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        line = said(log, "recovered ")
        if line and (found := re.search(seconds, line)):
            return float(found[1])
        time.sleep(0.2)
    return None

"""(g) Two workers against one, each held to 40 % of a core: CPU per message and rate.

A CPU quota of the kernel (cgroup v1, `cpu.cfs_quota_us`) holds them, 20 ms in every 50; where that cannot be
set, there is no figure. Each has its own data folder; both read one topic in one group.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.broker import Broker
from benchmarks.cores import load as load_average
from benchmarks.figure import Figure
from benchmarks.readings import PARTITIONS, Load
from benchmarks.subject import Subject, cpu_seconds
from benchmarks.tumbling import tpstream

SHARE = 0.4
PERIOD_US = 50_000
CGROUP = Path("/sys/fs/cgroup/cpu")
COUNT = 6_500_000
SETTLE_SECONDS, SECONDS = 8.0, 10.0
"""For the rebalance, and then measured."""


@contextmanager
def held(name: str) -> Iterator[Path]:
    """A cgroup of its own with the quota. Raises RuntimeError where it cannot be made."""
    group = CGROUP / f"tpstream-bench-{os.getpid()}-{name}"
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(round(PERIOD_US * SHARE)))
    except OSError as error:
        raise RuntimeError(f"no CPU quota can be set here ({error})") from None
    try:
        yield group
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def run() -> Iterator[Figure]:
    """One worker, then two, on the same load in brokers of their own."""
    found: dict[int, tuple[float, float]] = {}
    for count in (1, 2):
        found[count] = _measure(count)
        cpu, rate = found[count]
        yield Figure(
            bench=f"workers: {count}, each held to {SHARE:.0%} of a core",
            value=round(rate),
            unit="msg/s",
            peer="one worker" if count > 1 else None,
            ratio=round(rate / found[1][1], 2) if count > 1 else None,
            cpu_us_per_message=round(cpu, 2),
            note=f"tumbling mean, 1,000 devices; CPU per message {cpu / found[1][0]:.2f} of one worker's; "
            f"load average {load_average()}",
        )


def _measure(count: int) -> tuple[float, float]:
    """CPU µs per message, and messages per second, of so many workers together."""
    with Broker() as broker, ExitStack() as stack:
        load = Load("bench.readings.10hz", 1_000, COUNT, 100)
        broker.make(load.topic, PARTITIONS)
        load.write(broker.bootstrap)
        subjects = []
        for n in range(count):
            group = stack.enter_context(held(str(n)))
            folder = broker.folder / str(n)
            folder.mkdir()
            command, environ, _ = tpstream(load, broker, folder / "state")
            subject = stack.enter_context(Subject(command, folder / "log", environ))
            (group / "cgroup.procs").write_text(str(subject.process.pid))
            subjects.append(subject)
        seen = [subject.next() for subject in subjects]
        settled = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < settled:
            seen = [subject.newest(n) for subject, n in zip(subjects, seen, strict=True)]
            time.sleep(0.1)
        before, cpu, at = sum(seen), sum(cpu_seconds(s.process.pid) for s in subjects), time.monotonic()
        while time.monotonic() - at < SECONDS:
            seen = [subject.newest(n) for subject, n in zip(subjects, seen, strict=True)]
            time.sleep(0.1)
        seconds = time.monotonic() - at
        messages = sum(seen) - before
        if not messages or sum(seen) >= load.total:
            raise RuntimeError(f"{messages} messages in {seconds:.0f} s of {load.total}: the load is of the wrong size")
        return (sum(cpu_seconds(s.process.pid) for s in subjects) - cpu) / messages * 1e6, messages / seconds

"""(f) Resident memory of a worker of role process with 100,000 devices, three keys each in open windows."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import parts
from benchmarks.broker import Broker
from benchmarks.figure import Figure
from benchmarks.subject import Subject, rss_mb
from benchmarks.uplink import Uplink

DEVICES = 100_000
TURNS = 3
"""Publishes of each device."""


def run() -> Iterator[Figure]:
    """The highest RSS while it works, and that at the end."""
    with Broker() as broker:
        settings = parts.settings_for(broker, "worker")
        uplink = Uplink(DEVICES, DEVICES * TURNS)
        uplink.write(broker.bootstrap)
        peak = 0.0
        with Subject(
            parts.worker("process", "decode", "windows"), broker.folder / "log", settings.environ()
        ) as subject:
            while subject.next() < uplink.count:
                peak = max(peak, rss_mb(subject.process.pid))
            end = rss_mb(subject.process.pid)
        yield Figure(
            bench=f"memory: {DEVICES} devices, three keys each, process and its script processes",
            value=round(end),
            unit="MB",
            note=f"peak while it worked {peak:.0f} MB",
        )

"""(h) The store is away for 60 s at 5,000 messages a second of three points: what its worker holds meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

from benchmarks import parts
from benchmarks.broker import Broker
from benchmarks.cores import load as load_average
from benchmarks.figure import Figure
from benchmarks.subject import Subject, rss_mb
from benchmarks.uplink import POINTS
from tpstream.bus import topics
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.position import Position
from tpstream.bus.producer import Producer
from tpstream.bus.provision import read_life
from tpstream.messages import Point, Telemetry
from tpstream.settings import Settings

RATE = 5_000
BEFORE, AWAY, PATIENCE = 15.0, 60.0, 120.0


class Source(threading.Thread):
    """Telemetry at RATE, in slices of 20 ms, from a thread with a producer of its own."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(daemon=True)
        self.settings = settings
        self.sent = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        asyncio.run(self._send())

    async def _send(self) -> None:
        record = await read_life(self.settings.bootstrap)
        assert record is not None
        life = bytes.fromhex(record.id)
        producer = Producer(self.settings.bootstrap, self.settings.partitions, linger_ms=20)
        await producer.start()
        began = time.monotonic()
        offsets = [0] * self.settings.partitions
        topic = topics.uplink_telemetry
        while not self.stopping.is_set():
            await asyncio.sleep(0.02)
            now = time.time_ns() // 1_000_000
            while self.sent < (time.monotonic() - began) * RATE:
                n = self.sent
                number, device = n % len(offsets), f"load-{n % 1_000:04d}"
                at = Position(life, number, offsets[number])
                offsets[number] += 1
                points = tuple(Point(key, now + n % 997, n % 4_000 / 100) for key in ("temperature", "humidity", "co2"))
                header = [("tp", DerivedHeader(Kind.PUBLISH, at, at).pack())]
                value = topic.encode(Telemetry(f"{device}-{n // 1_000}", points))
                producer.add(topic.name, number, device.encode(), value, header, now)
                self.sent += 1
        await producer.flush()
        await producer.stop()


def run() -> Iterator[Figure]:
    """Before, during and after; in rows, all of them at the end."""
    with Broker() as broker:
        settings = parts.settings_for(broker, "worker")
        with (
            parts.store(settings) as store,
            Subject(parts.worker("store"), broker.folder / "log", settings.environ()) as subject,
        ):
            source = Source(settings)
            source.start()
            subject.next()
            before = _peak(subject, BEFORE)
            store.kill()
            away = _peak(subject, AWAY)
            store.start()
            back = time.monotonic()
            peak = away
            while time.monotonic() - back < PATIENCE:
                sent, at = source.sent, time.monotonic()
                peak = max(peak, rss_mb(subject.process.pid))
                if store.count("telemetry") >= sent * POINTS - RATE * POINTS * 2:  # two seconds of flow
                    break
                time.sleep(0.2)
            else:
                yield Figure(bench="store away 60 s", value=0, unit="MB", note="void: it never caught up")
                return
            source.stopping.set()
            source.join()
            deadline = time.monotonic() + 30
            while (rows := store.count("telemetry")) != source.sent * POINTS and time.monotonic() < deadline:
                time.sleep(0.5)
        wrong = "" if rows == source.sent * POINTS else f"VOID: {rows} rows of {source.sent * POINTS}; "
        yield Figure(
            bench=f"store away {AWAY:.0f} s at {RATE} msg/s: growth of the store worker's RSS",
            value=round(peak - before),
            unit="MB",
            note=f"{wrong}RSS {before:.0f} MB before, {away:.0f} while away, {peak:.0f} while catching up; caught up "
            f"{at - back:.1f} s after the store was back; {source.sent} messages sent; load average {load_average()}",
        )


def _peak(subject: Subject, seconds: float) -> float:
    """The highest RSS in so many seconds."""
    peak, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        peak = max(peak, rss_mb(subject.process.pid))
        time.sleep(0.5)
    return peak

"""The lane beside a bare client and stock Faust: the same topic, orjson on every record, one process each.

CPU is the contender's own, from its first record to its last, so start-up and the broker are not in it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import orjson
import uvloop

from benchmarks.figure import Figure
from benchmarks.platform import free_ports
from tpstream.app import App, Services
from tpstream.bus import topics
from tpstream.bus.batch import Batch
from tpstream.bus.envelope import Kind, RawHeader
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.runner import Runner
from tpstream.embedded import kafka
from tpstream.settings import Settings

RECORDS = {"aiokafka": 200_000, "lane": 200_000, "faust": 60_000}
"""How many each contender reads; Faust fewer, as it takes longer."""

VALUE = orjson.dumps({"temperature": 21.5, "humidity": 44.1, "battery": 3.7, "pad": "x" * 95})
SECONDS = 120.0


@dataclass
class Meter:
    """CPU and wall time from the first record to the last."""

    count: int
    seen: int = 0
    cpu: float = 0.0
    wall: float = 0.0

    def __post_init__(self) -> None:
        self.done = asyncio.Event()

    def saw(self, records: int) -> None:
        """So many records more were decoded."""
        if not self.seen:
            self.cpu, self.wall = time.process_time(), time.perf_counter()
        self.seen += records
        if self.seen >= self.count and not self.done.is_set():
            self.cpu = (time.process_time() - self.cpu) / self.seen * 1e6
            self.wall = time.perf_counter() - self.wall
            self.done.set()


def run() -> Iterator[Figure]:
    """A broker of its own, records in it, then each contender. Raises RuntimeError where one does not end."""
    port = free_ports(1)[0]
    settings = Settings(kafka_port=port, session_timeout=3.0, data_dir=Path(tempfile.mkdtemp(prefix="tpstream-bench-")))
    broker = subprocess.Popen(kafka.command("127.0.0.1", port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        asyncio.run(_fill(settings, max(RECORDS.values())))
        bare = None
        for name in ("aiokafka", "lane", "faust"):
            cpu, wall = _contend(name, settings)
            bare = bare or cpu
            yield Figure(
                bench=f"{name}: fetch to handler, orjson decode",
                value=round(RECORDS[name] / wall),
                unit="msg/s",
                peer="aiokafka getmany",
                ratio=round(bare / cpu, 3),
                cpu_us_per_message=round(cpu, 2),
                note=f"{len(VALUE)} bytes, {settings.partitions} partitions; ratio is of CPU, peer's by this one's",
            )
    finally:
        broker.kill()
        broker.wait()


def _contend(name: str, settings: Settings) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.lane", name, str(settings.kafka_port), str(settings.data_dir)]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"{name} did not get through its records: {last}") from None
    return msgspec.json.decode(ended.stdout, type=tuple[float, float])


async def _fill(settings: Settings, count: int) -> None:
    await provision(settings, wait=20, fresh=True)
    producer = Producer(settings.bootstrap, settings.partitions)
    await producer.start()
    headers = [("tp", RawHeader(Kind.PUBLISH).pack())]
    for n in range(count):
        producer.add(topics.uplink_raw.name, n % settings.partitions, b"d", VALUE, headers, n)
        if n % 5_000 == 0:
            await producer.flush()
    await producer.flush()
    await producer.stop()


async def _aiokafka(settings: Settings, meter: Meter) -> None:
    import aiokafka

    consumer = aiokafka.AIOKafkaConsumer(
        topics.uplink_raw.name,
        bootstrap_servers=settings.bootstrap,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2_000_000,
    )
    await consumer.start()
    while not meter.done.is_set():
        for records in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
            for record in records:
                orjson.loads(record.value)
            meter.saw(len(records))
    await consumer.stop()


async def _lane(settings: Settings, meter: Meter) -> None:
    app = App()

    @app.batch_agent(topics.uplink_raw)
    async def decode(batch: Batch) -> None:
        for record in batch:
            orjson.loads(record.value or b"")
        meter.saw(len(batch))

    producer = Producer(settings.bootstrap, settings.partitions)
    await producer.start()
    services = Services(settings=settings, catalog=None, scripts=None)  # type: ignore[arg-type]
    agents = list(app.agents.values())
    runner = Runner("bench", agents, services, producer, interval=0.2, on_rejected=lambda sink, error: None)
    await runner.run(meter.done)
    await producer.stop()


async def _faust(settings: Settings, meter: Meter) -> None:
    import faust

    app = faust.App(
        "bench-faust",
        broker=f"kafka://{settings.bootstrap}",
        datadir=str(settings.data_dir),
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=3.0,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        value_serializer="raw",
    )
    topic = app.topic(topics.uplink_raw.name, value_serializer="raw")

    @app.agent(topic)  # type: ignore[untyped-decorator]
    async def decode(stream: faust.StreamT[bytes]) -> None:
        async for value in stream:
            orjson.loads(value)
            meter.saw(1)

    await app.start()
    await meter.done.wait()
    await app.stop()


CONTENDERS: dict[str, Callable[[Settings, Meter], Awaitable[None]]] = {
    "aiokafka": _aiokafka,
    "lane": _lane,
    "faust": _faust,
}


async def _main(name: str, port: int, folder: Path) -> None:
    meter = Meter(RECORDS[name])
    settings = Settings(kafka_port=port, session_timeout=3.0, data_dir=folder)
    await CONTENDERS[name](settings, meter)
    print(msgspec.json.encode((meter.cpu, meter.wall)).decode())


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))

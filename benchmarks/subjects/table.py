"""A table with a key per device: a batch agent that adds each reading to its device's sum.   BOOTSTRAP TOPIC FOLDER"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import msgspec
import uvloop

from benchmarks.readings import PARTITIONS
from benchmarks.subjects.decoders import DECODERS
from benchmarks.subjects.progress import Progress
from tpstream import memory
from tpstream.app import App, Services
from tpstream.bus.batch import Batch
from tpstream.bus.changelog import changelog_of
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.runner import Runner
from tpstream.bus.table import Table
from tpstream.bus.topics import Topic
from tpstream.settings import Settings

GROUP = "bench-table"
IN_MEMORY = 50_000
"""Keys: the table is larger than memory."""


class Sum(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is kept of a device."""

    total: float
    count: int
    last: int


sums = Table("sums", Sum)


async def main(bootstrap: str, topic: str, folder: str) -> None:
    """Until SIGTERM."""
    settings = Settings(kafka=bootstrap, partitions=PARTITIONS, data_dir=Path(folder), table_keys=IN_MEMORY)
    await provision(settings, changelogs=[changelog_of(GROUP, sums)])
    app, progress, decode = App(), Progress(), DECODERS["msgspec"]

    @app.batch_agent(Topic(topic, bytes), tables=(sums,))
    async def add(batch: Batch) -> None:
        part = sums.of(batch)
        for record in batch:
            device = (record.key or b"").decode()
            position = batch.position(record)
            if part.seen(device, position):
                continue
            reading, old = decode(record.value or b""), part.get(device)
            total, count = (old.total, old.count) if old is not None else (0.0, 0)
            part.put(device, Sum(total + reading.temperature, count + 1, reading.ts), position)
        progress.count += len(batch)

    producer = Producer(settings.bootstrap, settings.partitions)
    await producer.start()
    services = Services(settings=settings, catalog=None, scripts=None)  # type: ignore[arg-type]
    runner = Runner(
        GROUP,
        list(app.agents.values()),
        services,
        producer,
        interval=settings.checkpoint_ms / 1000,
        on_rejected=lambda sink, error: None,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)
    await runner.run(stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    memory.tune()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        uvloop.install()
        runner.run(main(*sys.argv[1:4]))

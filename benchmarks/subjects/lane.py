"""The lane: a batch agent that decodes every record and does nothing else.   BOOTSTRAP TOPIC FOLDER DECODER"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from benchmarks.readings import PARTITIONS
from benchmarks.subjects.decoders import DECODERS
from benchmarks.subjects.progress import Progress
from tpstream.app import App, Services
from tpstream.bus.batch import Batch
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.runner import Runner
from tpstream.bus.topics import Topic
from tpstream.settings import Settings


async def main(bootstrap: str, topic: str, folder: str, decoder: str) -> None:
    """Until it is stopped."""
    settings = Settings(kafka=bootstrap, partitions=PARTITIONS, data_dir=Path(folder))
    await provision(settings)
    app, progress, decode = App(), Progress(), DECODERS[decoder]

    @app.batch_agent(Topic(topic, bytes))
    async def read(batch: Batch) -> None:
        for record in batch:
            decode(record.value or b"")
        progress.count += len(batch)

    producer = Producer(settings.bootstrap, settings.partitions)
    await producer.start()
    services = Services(settings=settings, catalog=None, scripts=None)  # type: ignore[arg-type]
    runner = Runner(
        f"bench-{settings.data_dir.name}",
        list(app.agents.values()),
        services,
        producer,
        interval=settings.checkpoint_ms / 1000,
        on_rejected=lambda sink, error: None,
    )
    await runner.run(asyncio.Event())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        uvloop.install()
        runner.run(main(*sys.argv[1:]))

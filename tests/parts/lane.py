"""A worker's lane, run in the test's own process, and what is in its topics afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import aiokafka
from aiokafka import TopicPartition

from tpstream.app import App, Services
from tpstream.bus.agent import check_partitions
from tpstream.bus.changelog import changelog_of
from tpstream.bus.owner import PartitionOwner
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.reader import read_to_end
from tpstream.bus.runner import Runner
from tpstream.settings import Settings


@contextlib.asynccontextmanager
async def running(settings: Settings, group: str, app: App, *, ticks: bool = False) -> AsyncIterator[Runner]:
    """A worker of this application, its topics made as a worker makes them; stopped in order at the end.

    With `ticks` it looks for what is due in silence as a worker does.
    """
    agents = list(app.agents.values())
    check_partitions(agents, settings.partitions)
    changelogs = [changelog_of(group, table) for agent in agents for table in agent.tables]
    await provision(settings, changelogs=changelogs, users=tuple(app.topics.values()), wait=20)
    services = Services(settings=settings, catalog=None, scripts=None)  # type: ignore[arg-type]
    producer = Producer(settings.bootstrap, settings.partitions)
    await producer.start()
    runner = Runner(group, agents, services, producer, interval=0.05, on_rejected=lambda sink, error: None)
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop))
    looking = asyncio.create_task(_tick(runner)) if ticks else None
    try:
        yield runner
        if task.done():
            await task
    finally:
        if looking is not None:
            looking.cancel()
        stop.set()
        await asyncio.wait([task], timeout=20)
        await producer.stop()


async def _tick(runner: Runner) -> None:
    owner = PartitionOwner(runner.lane, runner.producer, runner.checkpoint.tables)
    while True:
        await asyncio.sleep(0.1)
        if runner.assigned:
            for place, lag in runner.faust.lag().items():
                runner.lane.progress[place].look(lag, time.monotonic())
            owner.tick(int(time.time() * 1000))


async def until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    """Wait for it; TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def publish(settings: Settings, topic: str, records: Iterable[tuple[str, bytes, int]]) -> None:
    """Keys, values and times in ms, as somebody else's program sends them: stock aiokafka chooses the partition."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=settings.bootstrap, max_request_size=20_000_000)
    await producer.start()
    try:
        for key, value, timestamp in records:
            await producer.send(topic, value, key=key.encode(), timestamp_ms=timestamp)
    finally:
        await producer.stop()


async def stored(settings: Settings, topic: str, partitions: int | None = None) -> list[Any]:
    """All records of a topic (of TPSTREAM_PARTITIONS partitions, or so many), each partition in order."""
    starts = {TopicPartition(topic, number): 0 for number in range(partitions or settings.partitions)}
    return [record async for _, some in read_to_end(settings.bootstrap, starts) for record in some]

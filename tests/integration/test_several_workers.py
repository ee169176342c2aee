"""Several workers of one group on Apache Kafka: partitions change hands, and every record counts once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from parts.kafka import free_port
from parts.lane import until

from tpstream.app import Services
from tpstream.bus import topics
from tpstream.bus.agent import Agent
from tpstream.bus.batch import Batch
from tpstream.bus.changelog import changelog_of
from tpstream.bus.envelope import Kind, RawHeader
from tpstream.bus.partitioner import partition_of
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.runner import Runner
from tpstream.bus.table import Table
from tpstream.bus.topics import Topic
from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka]

KEYS = [f"device-{n}" for n in range(40)]


class Count(msgspec.Struct):
    n: int


class Worker:
    """A runner with an agent that counts each device's records in a table of its own."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        handled: Counter[tuple[int, int]],
        reads: tuple[Topic[Any], ...] = (topics.uplink_raw,),
    ) -> None:
        self.table = Table("counts", Count)
        self.reads = reads
        self.handled = handled
        self.settings = settings
        self.group = group
        self.stopping = asyncio.Event()

    async def count(self, batch: Batch) -> None:
        part = self.table.of(batch)
        for record in batch:
            self.handled[batch.partition, record.offset] += 1
            position, key = batch.position(record), (record.key or b"").decode()
            if not part.seen(key, position):
                old = part.get(key)
                part.put(key, Count((old.n if old else 0) + 1), position)

    async def start(self) -> None:
        agent = Agent("count", self.count, self.reads, (self.table,), "process")
        await provision(self.settings, changelogs=[changelog_of(self.group, self.table)], wait=20)
        services = Services(settings=self.settings, catalog=None, scripts=None)  # type: ignore[arg-type]
        self.producer = Producer(self.settings.bootstrap, self.settings.partitions)
        await self.producer.start()
        self.runner = Runner(
            self.group,
            [agent],
            services,
            self.producer,
            interval=0.2,
            web_port=free_port(),
            on_rejected=lambda sink, error: None,
        )
        self.task = asyncio.create_task(self.runner.run(self.stopping))

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.wait([self.task], timeout=30)
        await self.producer.stop()

    @property
    def partitions(self) -> set[int]:
        return set(self.runner.checkpoint.states)

    def counts(self) -> dict[str, int]:
        return {key: value.n for part in self.table.partitions.values() for key, value in part.items()}


class Group:
    """Workers that come and go, and the records that they are to count."""

    def __init__(self, kafka: Any, folder: Path) -> None:
        self.kafka = kafka
        self.name = f"several-{folder.name}"
        self.folder = folder
        self.handled: Counter[tuple[int, int]] = Counter()
        self.sent: Counter[str] = Counter()
        self.workers: list[Worker] = []
        self.settings = kafka.settings(session_timeout=6.0)

    async def join(self, instance: str = "", reads: tuple[Topic[Any], ...] = (topics.uplink_raw,)) -> Worker:
        settings = self.kafka.settings(session_timeout=6.0, data_dir=self.folder / "data", instance=instance)
        worker = Worker(settings, self.name, self.handled, reads)
        self.workers.append(worker)
        await worker.start()
        return worker

    async def leave(self, worker: Worker) -> None:
        self.workers.remove(worker)
        await worker.stop()

    async def shared(self) -> None:
        """Wait until the workers have all partitions among them, and each has some."""
        every = set(range(self.settings.partitions))

        def fair() -> bool:
            owned = [w.partitions for w in self.workers]
            return sum(map(len, owned)) == len(every) and set().union(*owned) == every and all(owned)

        await until(fair)

    async def publish(self, count: int) -> None:
        producer = Producer(self.settings.bootstrap, self.settings.partitions)
        await producer.start()
        header = RawHeader(Kind.PUBLISH).pack()
        for n in range(count):
            key = KEYS[n % len(KEYS)]
            self.sent[key] += 1
            producer.add(topics.uplink_raw.name, None, key.encode(), b"x", [("tp", header)], 1_000 + n)
            if n % 500 == 0:
                await producer.flush()
                await asyncio.sleep(0.02)
        await producer.flush()
        await producer.stop()

    async def counted(self) -> None:
        """Wait until every record that was sent is in a table, once."""
        await until(lambda: self.total() >= sum(self.sent.values()))
        assert self.counts() == dict(self.sent)

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for worker in self.workers:
            for key, n in worker.counts().items():
                assert partition_of(key.encode(), self.settings.partitions) in worker.partitions
                found[key] = n
        return found

    def total(self) -> int:
        return sum(self.counts().values())

    def twice(self) -> int:
        return sum(1 for n in self.handled.values() if n > 1)


@pytest.fixture
async def group(fresh_apache: Any, tmp_path: Path) -> AsyncIterator[Group]:
    made = Group(fresh_apache, tmp_path)
    yield made
    for worker in list(made.workers):
        with contextlib.suppress(Exception):
            await made.leave(worker)


async def test_partitions_change_hands_in_order_and_nothing_is_handled_twice(group: Group) -> None:
    first = await group.join()
    await group.shared()
    publishing = asyncio.create_task(group.publish(20_000))
    second = await group.join()
    await group.shared()
    third = await group.join()
    await group.shared()
    await group.leave(second)
    await group.shared()
    await publishing
    await group.counted()
    await group.leave(first)
    await group.shared()
    assert group.counts() == dict(group.sent)
    assert third.partitions == set(range(8))
    assert group.twice() == 0, "a hand-over in order finishes, commits, and only then lets go"


async def test_a_standby_has_the_values_and_takes_over(group: Group, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tpstream")
    first = await group.join()
    await group.shared()
    await group.publish(4_000)
    await group.counted()
    second = await group.join()
    await group.shared()

    def followed(worker: Worker, other: Worker) -> bool:
        standby = worker.runner.standby
        assert standby is not None
        have = {number: dict(state.values("counts")) for number, state in standby.states.items()}
        return set(have) == other.partitions and sum(map(len, have.values())) == len(other.counts())

    await until(lambda: followed(second, first) and followed(first, second))
    await group.publish(2_000)
    await group.counted()
    caplog.clear()
    await asyncio.sleep(1.5)
    await group.leave(first)
    await group.shared()
    assert group.counts() == dict(group.sent)
    replayed = [r.getMessage() for r in caplog.records if "changelog records in" in r.getMessage()]
    assert replayed
    assert group.twice() == 0


async def test_a_worker_with_a_name_that_restarts_moves_nothing(group: Group) -> None:
    first = await group.join("a")
    second = await group.join("b")
    await group.shared()
    owned, assignments = first.partitions, second.runner.lane.assignment
    await group.publish(2_000)
    await group.counted()
    await group.leave(first)
    again = await group.join("a")
    await group.shared()
    await group.publish(2_000)
    await group.counted()
    assert again.partitions == owned
    assert second.runner.lane.assignment == assignments, "the other worker has noticed nothing"
    assert group.twice() == 0


@pytest.mark.parametrize("more", [True, False])
async def test_a_worker_with_a_name_that_reads_other_topics_is_dealt_them(group: Group, more: bool) -> None:
    """Kafka gives a member that comes back what its predecessor had, and asks nobody."""
    few, many = (topics.uplink_raw,), (topics.uplink_raw, topics.uplink_telemetry)
    before, after = (few, many) if more else (many, few)
    worker = await group.join("a", before)
    await group.shared()
    await group.leave(worker)
    again = await group.join("a", after)
    await group.shared()
    assert set(again.runner.lane.progress) == {(topic.name, n) for topic in after for n in range(8)}
    await group.publish(1_000)
    await group.counted()

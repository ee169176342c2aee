"""An application with topics, plain agents and batch agents of its own, on a broker."""

from __future__ import annotations

import aiokafka
import msgspec
import pytest
from aiokafka.admin import NewTopic
from parts.kafka import Kafka
from parts.lane import publish, running, stored, until

from tpstream.app import App
from tpstream.bus import topics
from tpstream.bus.batch import Batch
from tpstream.bus.provision import connect, provision
from tpstream.bus.stream import Stream
from tpstream.bus.table import Table
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

pytestmark = pytest.mark.kafka


class Reading(msgspec.Struct):
    celsius: float


class Count(msgspec.Struct):
    n: int


async def shape(settings: Settings, topic: str) -> int:
    admin = await connect(settings.bootstrap, 5)
    try:
        return next(len(t["partitions"]) for t in await admin.describe_topics() if t["topic"] == topic)
    finally:
        await admin.close()


async def test_plain_agents_beside_batch_agents_on_topics_of_ones_own(fresh_kafka: Kafka) -> None:
    settings = fresh_kafka.settings()
    app, counts = App(), Table("counts", Count)
    readings = app.topic("plant.readings.v1", Reading)
    alarms = app.topic("plant.alarms.v1", dict[str, float], partitions=11, compact=True)
    seen: list[float] = []
    heard: list[tuple[str, float]] = []

    @app.agent(readings, tables=(counts,))
    async def count(stream: Stream[Reading]) -> None:
        table = stream.table(counts)
        async for event in stream.events():
            if event.value.celsius == 66:
                raise ValueError("cannot be")
            table[event.key] = Count(table[event.key].n + 1 if event.key in table else 1)
            if event.value.celsius >= 100:
                stream.send(alarms, {"celsius": event.value.celsius})

    @app.batch_agent(readings)
    async def watch(batch: Batch) -> None:
        seen.extend(reading.celsius for _, reading in batch.values())

    @app.agent(alarms)  # of other partitions than the tables have
    async def listen(stream: Stream[dict[str, float]]) -> None:
        heard.extend([(key, alarm["celsius"]) async for key, alarm in stream.items()])

    async def all_counted(total: int) -> None:
        await until(lambda: total == sum(v.n for p in counts.partitions.values() for _, v in p.items()))

    values = [(f"oven-{n % 20}", b'{"celsius":%d}' % n, 1_000) for n in range(120)]
    async with running(settings, "plant", app) as runner:
        assert await shape(settings, "plant.readings.v1") == settings.partitions
        assert await shape(settings, "plant.alarms.v1") == 11
        await publish(settings, readings.name, values)
        await all_counted(119)
        await until(lambda: len(heard) == 20 and runner.lag() == 0)
    async with running(settings, "plant", app) as runner:  # what was acknowledged does not come again
        await publish(settings, readings.name, [("oven-3", b'{"celsius":1}', 1_000)])
        await all_counted(120)
        await until(lambda: runner.lag() == 0)
    assert sorted(seen) == sorted([*map(float, range(120)), 1.0])
    assert sorted(heard) == sorted((f"oven-{n % 20}", float(n)) for n in range(100, 120))
    sent = await stored(settings, alarms.name, 11)
    stock = aiokafka.producer.producer.DefaultPartitioner()
    assert {record.partition for record in sent} == {stock(r.key, list(range(11)), list(range(11))) for r in sent}
    letters = [topics.dead_letters.decode(r.value) for r in await stored(settings, "tp.dlq.v1")]
    assert [(one.stage, one.topic, one.payload) for one in letters] == [
        ("count", "plant.readings.v1", b'{"celsius":66}')
    ]


async def test_a_topic_of_another_number_of_partitions_is_refused_with_what_mends_it(kafka: Kafka) -> None:
    settings, app = kafka.settings(), App()
    admin = await connect(settings.bootstrap, 5)
    await admin.create_topics([NewTopic("plant.other.v1", 3, 1)])
    await admin.close()
    app.topic("plant.other.v1", Reading)
    users = tuple(app.topics.values())
    with pytest.raises(
        ConfigurationError,
        match=r"topic plant\.other\.v1 has 3 partitions and should have 8; raise it by `kafka-topics\.sh .*"
        r"--alter --topic plant\.other\.v1 --partitions 8`.* or declare it with partitions=3",
    ):
        await provision(settings, users=users, wait=10)
    as_it_is = App()
    as_it_is.topic("plant.other.v1", Reading, partitions=3)
    await provision(settings, users=tuple(as_it_is.topics.values()), wait=10)

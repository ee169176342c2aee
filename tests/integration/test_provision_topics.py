"""Topics and lives on a broker."""

from __future__ import annotations

import asyncio

import pytest
from parts.kafka import Kafka

from tpstream.bus import topics
from tpstream.bus.provision import connect, provision, read_life
from tpstream.errors import ConfigurationError, Unavailable
from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.bus]


async def partitions(bootstrap: str) -> dict[str, int]:
    admin = await connect(bootstrap, 5)
    try:
        return {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics()}
    finally:
        await admin.close()


async def test_every_topic_has_its_partitions(kafka: Kafka) -> None:
    there = await partitions(kafka.bootstrap)
    for topic in topics.all_topics():
        assert there[topic.name] == (8 if topic.by_device else 1)


async def test_a_second_call_finds_the_same_life(kafka: Kafka) -> None:
    assert await provision(kafka.settings(), wait=5) == kafka.life
    record = await read_life(kafka.bootstrap)
    assert record is not None
    assert bytes.fromhex(record.id) == kafka.life
    assert record.partitions == 8


async def test_changelogs_are_made_too(kafka: Kafka) -> None:
    await provision(kafka.settings(), changelogs=("tp.test-changelog",), wait=5)
    assert (await partitions(kafka.bootstrap))["tp.test-changelog"] == 8


async def test_another_number_of_partitions_is_refused(kafka: Kafka) -> None:
    with pytest.raises(ConfigurationError, match=r"tp\.uplink\.raw\.v1 has 8 .* should have 6; .*PARTITIONS=8"):
        await provision(kafka.settings(partitions=6), wait=5)


async def delete_all(bootstrap: str) -> None:
    """Delete every topic, and wait until it is gone: Apache Kafka still shows it for a moment."""
    admin = await connect(bootstrap, 5)
    await admin.delete_topics(list(await admin.list_topics()))
    async with asyncio.timeout(10):
        while await admin.list_topics():
            await asyncio.sleep(0.05)
    await admin.close()


async def test_a_restarted_broker_is_a_new_life_only_if_it_forgets(fresh_kafka: Kafka) -> None:
    before = fresh_kafka.life
    fresh_kafka.restart()
    assert (fresh_kafka.life != before) == fresh_kafka.forgets


async def test_racing_processes_agree_on_one_life(fresh_kafka: Kafka) -> None:
    await delete_all(fresh_kafka.bootstrap)
    lives = await asyncio.gather(*(provision(fresh_kafka.settings(), wait=5) for _ in range(4)))
    assert len(set(lives)) == 1
    assert lives[0] != fresh_kafka.life


async def test_reading_a_life_makes_no_topic(fresh_kafka: Kafka) -> None:
    await delete_all(fresh_kafka.bootstrap)
    assert await read_life(fresh_kafka.bootstrap) is None
    assert await partitions(fresh_kafka.bootstrap) == {}


async def test_kafka_away_is_said_with_the_remedy() -> None:
    with pytest.raises(Unavailable, match="not reachable; start it, or set TPSTREAM_KAFKA"):
        await provision(Settings(kafka="127.0.0.1:1"), wait=0.2)

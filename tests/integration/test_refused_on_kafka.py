"""What Apache Kafka will never take of what agents send: dead letters, with all the rest through once and in order."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from parts.kafka import Kafka
from parts.lane import publish, running, stored, until

from tpstream.app import App
from tpstream.bus import topics
from tpstream.bus.batch import Batch
from tpstream.bus.changelog import changelog_of
from tpstream.bus.provision import connect, provision
from tpstream.bus.table import Table
from tpstream.messages import DeadLetter
from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.apache]

DAY = 86_400_000


class Text(msgspec.Struct):
    text: str


async def limit(settings: Settings, topic: str, size: int) -> None:
    admin = await connect(settings.bootstrap, 5)
    try:
        configs = {"max.message.bytes": str(size)}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    finally:
        await admin.close()


def records(values: list[bytes]) -> list[tuple[str, bytes, int]]:
    return [(f"d-{n % 7}", value, 1_000 + n) for n, value in enumerate(values)]


async def letters(settings: Settings, stage: str) -> list[DeadLetter]:
    found = [topics.dead_letters.decode(record.value) for record in await stored(settings, topics.dead_letters.name)]
    return [letter for letter in found if letter.stage == stage]


async def test_records_too_large_for_their_topic_are_dead_letters_and_all_others_go_through(apache: Kafka) -> None:
    settings = apache.settings()
    app, counts, seen = App(), Table("large-counts", Text), set()
    source, out = app.topic("large.in.v1", bytes), app.topic("large.out.v1", bytes)

    @app.batch_agent(source, tables=(counts,))
    async def copy_large(batch: Batch) -> None:
        for record in batch:
            seen.add(record.value)
            key, position = (record.key or b"").decode(), batch.position(record)
            counts.of(batch).put(key, Text(str(record.offset)), position)
            batch.send(out, record.value, key=key, position=position, timestamp=record.timestamp)

    # Most batches are larger than the topic takes, though few records are; one is beyond a batch of its own.
    values = [b"%04d" % n + b"x" * (20_000 if n % 50 == 7 else 600) for n in range(2_000)]
    values[1_234] = b"1234" + b"y" * 2_000_000
    large = {n for n in range(2_000) if n % 50 == 7 or n == 1_234}
    await provision(settings, users=tuple(app.topics.values()), wait=20)
    await limit(settings, out.name, 10_000)
    await publish(settings, source.name, records(values))
    async with running(settings, "large", app) as runner:
        await until(lambda: len(seen) == len(values) and runner.lag() == 0, 60)
        assert runner.producer.available
    async with running(settings, "large", app) as runner:  # what was acknowledged does not come again
        await publish(settings, source.name, records([b"9999 after"]))
        await until(lambda: len(seen) == len(values) + 1 and runner.lag() == 0)

    found = await stored(settings, out.name)
    got = [(record.key, record.value) for record in found]
    sent = [(b"d-%d" % (n % 7), value) for n, value in enumerate(values) if n not in large] + [(b"d-0", b"9999 after")]
    assert len(got) == len(sent), "each once"
    for key in {key for key, _ in sent}:
        assert [value for k, value in got if k == key] == [value for k, value in sent if k == key], "in order"
    refused = await letters(settings, "copy_large")
    assert sorted(letter.payload for letter in refused) == sorted(values[n] for n in large), "whole"
    one = next(letter for letter in refused if letter.payload == values[7])
    assert (one.device, one.reason, one.topic, one.ts) == ("d-0", "agent", out.name, 1_007)
    assert one.detail.startswith(f"topic {out.name} does not take a record of 20")
    assert "its max.message.bytes is 10000; have the agent send less, or raise it by" in one.detail


async def test_an_agent_whose_topic_refuses_most_is_stopped_and_its_input_waits(apache: Kafka) -> None:
    settings = apache.settings()
    app = App()
    source, out = app.topic("mass.in.v1", bytes), app.topic("mass.out.v1", bytes)

    @app.batch_agent(source)
    async def copy_mass(batch: Batch) -> None:
        for record in batch:
            batch.send(out, record.value, key="d", position=batch.position(record), timestamp=record.timestamp)

    await provision(settings, users=tuple(app.topics.values()), wait=20)
    await limit(settings, out.name, 1_000)
    await publish(settings, source.name, records([b"%04d" % n + b"x" * 2_000 for n in range(1_000)]))
    async with running(settings, "mass", app) as runner:
        await until(lambda: bool(runner.lane.stopped) and runner.lag() == 0)
        assert (
            "half of the last 1000 records that it sent are refused, last: topic mass.out.v1"
            in runner.lane.stopped["copy_mass"]
        )
        await publish(settings, source.name, records([b"later"] * 30))
        await until(lambda: runner.lag() == 30)
        await asyncio.sleep(2)  # two checkpoints
        assert runner.lag() == 30
    assert len(await letters(settings, "copy_mass")) == 1_000, "each, and nothing of what came later"
    assert await stored(settings, out.name) == []


async def test_a_record_of_a_time_that_its_topic_does_not_take_is_a_dead_letter(apache: Kafka) -> None:
    settings = apache.settings()
    app, seen = App(), []
    source, out = app.topic("times.in.v1", bytes), app.topic("times.out.v1", bytes)
    later = time.time_ns() // 1_000_000 + DAY

    @app.batch_agent(source)
    async def copy_times(batch: Batch) -> None:
        for record in batch:
            seen.append(record.value)
            timestamp = later if record.value.startswith(b"later") else record.timestamp
            batch.send(out, record.value, key="d", position=batch.position(record), timestamp=timestamp)

    await provision(settings, users=tuple(app.topics.values()), wait=20)
    values = [b"later %d" % n if n in (3, 4, 90) else b"%d" % n for n in range(100)]
    await publish(settings, source.name, records(values))
    async with running(settings, "times", app) as runner:
        await until(lambda: len(seen) >= 100 and runner.lag() == 0)
    assert sorted(r.value for r in await stored(settings, out.name)) == sorted(v for v in values if v[:1] != b"l")
    refused = await letters(settings, "copy_times")
    assert sorted(letter.payload for letter in refused) == [b"later 3", b"later 4", b"later 90"]
    assert f"with the time {later} ms, its message.timestamp.after.max.ms of 3600000" in refused[0].detail


async def test_a_value_that_its_changelog_does_not_take_is_waited_for_and_not_lost(
    apache: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    settings = apache.settings()
    app, kept = App(), Table("held-values", Text)
    source = app.topic("held.in.v1", bytes)

    @app.batch_agent(source, tables=(kept,))
    async def keep(batch: Batch) -> None:
        for record in batch:
            kept.of(batch).put((record.key or b"").decode(), Text(record.value.decode()), batch.position(record))

    changelog = changelog_of("held", kept)
    await provision(settings, changelogs=[changelog], users=tuple(app.topics.values()), wait=20)
    await limit(settings, changelog, 10_000)
    values = [b"%d" % n for n in range(6)] + [b"x" * 50_000]
    await publish(settings, source.name, records(values))
    async with running(settings, "held", app) as runner:
        await until(lambda: "the record of key b'd-6' has" in caplog.text)
        assert not runner.producer.available
        await asyncio.sleep(0.5)
        assert runner.lag() > 0, "nothing is committed without it"
        await limit(settings, changelog, 20_000_000)
        await until(lambda: runner.lag() == 0 and runner.producer.available)
    elsewhere = apache.settings()
    async with running(elsewhere, "held", app) as runner:
        await until(lambda: runner.assigned)
        found = {key: value.text.encode() for part in kept.partitions.values() for key, value in part.items()}
    assert found == {f"d-{n}": value for n, value in enumerate(values)}
    assert await letters(settings, "keep") == []

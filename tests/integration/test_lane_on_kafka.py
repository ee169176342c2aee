"""The lane on a broker: order, acknowledgement, retries, poison, tables over restarts."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from faust.types import TP
from parts.lane import running, stored, until

from tpstream.app import App
from tpstream.bus import topics
from tpstream.bus.batch import Batch
from tpstream.bus.changelog import changelog_of
from tpstream.bus.envelope import Kind, RawHeader
from tpstream.bus.producer import Producer
from tpstream.bus.table import Table
from tpstream.errors import Unavailable
from tpstream.messages import Point, Telemetry
from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.bus]


class Count(msgspec.Struct):
    n: int


async def publish(settings: Settings, texts: list[str], partition: int = 0) -> None:
    producer = Producer(settings.bootstrap, settings.partitions)
    await producer.start()
    header = RawHeader(Kind.PUBLISH).pack()
    for n, text in enumerate(texts):
        producer.add(topics.uplink_raw.name, partition, b"d", text.encode(), [("tp", header)], 1_000 + n)
    await producer.flush()
    await producer.stop()


async def test_batches_come_in_order_and_what_they_send_is_there(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings()
    app, seen = App(), []

    @app.batch_agent(topics.uplink_raw)
    async def copy(batch: Batch) -> None:
        for record in batch:
            text = record.value.decode()
            seen.append(text)
            message = Telemetry("d", (Point(text, record.timestamp, 1.0),))
            batch.send(topics.uplink_telemetry, message, key="d", position=batch.position(record), timestamp=5)

    await publish(settings, [str(n) for n in range(3000)])
    async with running(settings, "order", app) as runner:
        await until(lambda: len(seen) >= 3000)
        await publish(settings, [str(n) for n in range(3000, 3100)])
        await until(lambda: len(seen) >= 3100 and runner.lag() == 0)
    assert seen == [str(n) for n in range(3100)]
    out = await stored(settings, topics.uplink_telemetry.name)
    assert [topics.uplink_telemetry.decode(r.value).points[0].key for r in out] == seen


async def test_a_restarted_worker_goes_on_where_it_was_with_its_table(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings()
    table = Table("counts", Count)
    app, taken = App(), []

    @app.batch_agent(topics.uplink_raw, tables=(table,))
    async def count(batch: Batch) -> None:
        part = table.of(batch)
        for record in batch:
            old = part.get("all")
            part.put("all", Count((old.n if old else 0) + 1), batch.position(record))
            taken.append(record.offset)

    await publish(settings, ["x"] * 500)
    async with running(settings, "counting", app) as runner:
        await until(lambda: len(taken) == 500 and runner.lag() == 0)
    await publish(settings, ["x"] * 250)
    async with running(settings, "counting", app) as runner:
        await until(lambda: len(taken) == 750 and runner.lag() == 0)
        assert table.at(0).get("all") == Count(750)
        assert runner.lag() == 0
    async with running(settings, "counting", app) as runner:  # nothing new: nothing is behind
        await until(lambda: runner.assigned and table.at(0).get("all") == Count(750))
        await until(lambda: runner.faust.consumer.fetching(TP(topics.uplink_raw.name, 0)) is not None)
        await asyncio.sleep(0.5)
        assert runner.lag() == 0
    # The disk is lost: everything comes back from the changelog.
    elsewhere = fresh_kafka.settings()
    async with running(elsewhere, "counting", app) as runner:
        await until(lambda: runner.assigned)
        assert table.at(0).get("all") == Count(750)
    assert taken == list(range(750))


async def test_a_new_life_keeps_values_and_forgets_marks(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings()
    table = Table("kept", Count)
    app, taken = App(), []

    @app.batch_agent(topics.uplink_raw, tables=(table,))
    async def count(batch: Batch) -> None:
        part = table.of(batch)
        for record in batch:
            if part.seen("all", batch.position(record)):
                continue
            old = part.get("all")
            part.put("all", Count((old.n if old else 0) + 1), batch.position(record))
            taken.append(record.offset)

    await publish(settings, ["x"] * 100)
    async with running(settings, "lives", app) as runner:
        await until(lambda: len(taken) == 100 and runner.lag() == 0)
    fresh_kafka.new_life()
    await publish(settings, ["x"] * 30)
    async with running(settings, "lives", app) as runner:
        await until(lambda: len(taken) == 130 and runner.lag() == 0)
        assert table.at(0).get("all") == Count(130)
    changelog = await stored(settings, changelog_of("lives", table))
    assert changelog, "the kept value is written to the new changelog"


async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on_in_order(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings()
    table = Table("sums", Count)
    app, seen = App(), []

    @app.batch_agent(topics.uplink_raw, tables=(table,))
    async def picky(batch: Batch) -> None:
        part = table.of(batch)
        texts = []
        for record in batch:
            old = part.get("all")
            part.put("all", Count((old.n if old else 0) + 1), batch.position(record))
            if record.value == b"poison":
                raise ValueError("cannot digest this")
            texts.append(record.value.decode())
        seen.extend(texts)

    texts = [str(n) for n in range(100)]
    texts[37] = texts[90] = "poison"
    await publish(settings, texts)
    async with running(settings, "picky", app) as runner:
        await until(lambda: runner.lag() == 0 and len(seen) >= 98)
        assert table.at(0).get("all") == Count(98), "what a failed attempt wrote is undone"
    assert seen == [text for text in texts if text != "poison"]
    letters = [topics.dead_letters.decode(r.value) for r in await stored(settings, topics.dead_letters.name)]
    assert [(letter.source_offset, letter.payload, letter.stage, letter.reason) for letter in letters] == [
        (37, b"poison", "picky", "agent"),
        (90, b"poison", "picky", "agent"),
    ]
    assert "ValueError: cannot digest this" in letters[0].detail


async def test_a_part_that_is_away_is_waited_for(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings()
    app, seen = App(), []
    away = True

    @app.batch_agent(topics.uplink_raw)
    async def needs(batch: Batch) -> None:
        if away:
            raise Unavailable("the thing is away")
        seen.extend(record.value for record in batch)

    await publish(settings, ["a", "b"])
    async with running(settings, "waits", app) as runner:
        await until(lambda: "needs" in runner.lane.waiting)
        assert not seen
        away = False
        await until(lambda: len(seen) == 2)
        assert not runner.lane.waiting
    assert await stored(settings, topics.dead_letters.name) == []


async def test_a_mass_of_errors_stops_the_agent_and_not_the_data(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings()
    app = App()

    @app.batch_agent(topics.uplink_raw)
    async def broken(batch: Batch) -> None:
        raise RuntimeError("a bug")

    await publish(settings, ["x"] * 1500)
    async with running(settings, "broken", app) as runner:
        await until(lambda: "broken" in runner.lane.stopped, 60)
        assert "a bug" in runner.lane.stopped["broken"]
    letters = await stored(settings, topics.dead_letters.name)
    assert len(letters) <= 500


async def test_a_slow_agent_pauses_its_partition_and_then_gets_everything(fresh_kafka: Any) -> None:
    settings = fresh_kafka.settings(lane_records=100)
    app, seen = App(), []
    gate = asyncio.Event()

    @app.batch_agent(topics.uplink_raw)
    async def slow(batch: Batch) -> None:
        await gate.wait()
        seen.extend(record.value for record in batch)

    await publish(settings, [str(n) for n in range(6000)])
    async with running(settings, "slow", app) as runner:
        place = (topics.uplink_raw.name, 0)
        await until(lambda: place in runner.lane.progress and runner.lane.progress[place].buffered > 0)
        await asyncio.sleep(0.5)
        assert runner.lane.progress[place].buffered <= 5_100, "one fetch beyond the bound at the most"
        gate.set()
        await until(lambda: len(seen) == 6000 and runner.lag() == 0)
    assert seen == [str(n).encode() for n in range(6000)]

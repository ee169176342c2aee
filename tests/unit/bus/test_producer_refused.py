"""A record that its topic will never take is found and given up; all others go through once and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import InvalidTimestampError, KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.record import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus import topics
from tpstream.bus.batch import Outgoing
from tpstream.bus.producer import Producer
from tpstream.bus.refused import KEPT_OF_LARGER, Sender
from tpstream.bus.topic_sink import TopicSink
from tpstream.messages import DeadLetter

BATCH = 4_000


class Log:
    """Stands where aiokafka's producer does: refuses batches above its limits, and fails as often as it is told."""

    def __init__(self, limit: int, letters: int = 1 << 62) -> None:
        self.limit = limit
        self.letters = letters
        """The limit of the dead-letter topic."""
        self.latest = 1 << 62
        self.taken: dict[str, list[Any]] = {}
        self.failures: list[bool] = []
        self.requests = 0

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> Any:
        data = bytes(builder._build())
        records = list(MemoryRecords(data).next_batch())
        return self._answer(topic, len(data), [(r.key, r.value, r.timestamp) for r in records])

    async def send_and_wait(self, topic: str, *, partition: int, **record: Any) -> Any:
        row = (record["key"], record["value"], record["timestamp_ms"])
        return await self._answer(topic, len(row[0]) + len(row[1]) + 80, [row])

    def _answer(self, topic: str, size: int, rows: list[Any]) -> asyncio.Future[Any]:
        self.requests += 1
        answer = asyncio.get_running_loop().create_future()
        there = self.taken.setdefault(topic, [])
        if self.failures and self.failures.pop():
            answer.set_exception(KafkaTimeoutError())
        elif size > (self.letters if topic == topics.dead_letters.name else self.limit):
            answer.set_exception(MessageSizeTooLargeError())
        elif max(row[2] for row in rows) > self.latest:
            answer.set_exception(InvalidTimestampError())
        else:
            answer.set_result(type("Metadata", (), {"offset": len(there)}))
            there += rows
        return answer


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep
    monkeypatch.setattr("tpstream.bus.producer.asyncio.sleep", lambda seconds: sleep(0))


@pytest.fixture(autouse=True)
def limits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    async def limit_of(bootstrap: str, refused: Any) -> str:
        asked.append(refused.topic)
        return "1000"

    monkeypatch.setattr("tpstream.bus.topic_sink.limit_of", limit_of)
    return asked


def producer(log: Log, batch_bytes: int = BATCH) -> Producer:
    one = Producer("nowhere:1", 1, batch_bytes=batch_bytes)
    one._kafka = log  # type: ignore[assignment]
    return one


def letters(log: Log) -> list[DeadLetter]:
    return [topics.dead_letters.decode(value) for _, value, _ in log.taken.get(topics.dead_letters.name, [])]


@given(
    sizes=st.lists(st.sampled_from([1, 40, 300, 900, 1_100, 3_000, 6_000]), min_size=1, max_size=60),
    limit=st.sampled_from([600, 1_050, 3_500, 10_000]),
    failures=st.lists(st.booleans(), max_size=10),
)
def test_whatever_the_sizes_each_goes_through_once_in_order_or_is_given_up(
    sizes: list[int], limit: int, failures: list[bool]
) -> None:
    async def run() -> None:
        log = Log(limit)
        log.failures = list(failures)
        one = producer(log)
        rows = [Outgoing("t", 0, b"%03d" % n, b"x" * size, (), n) for n, size in enumerate(sizes)]
        one.add_all(rows, Sender("agent"))
        async with asyncio.timeout(10):
            await one.flush()
        fits = [row for row, size in zip(rows, sizes, strict=True) if size + 90 <= limit]
        assert [(r.key, r.value, r.timestamp) for r in fits] == log.taken["t"]
        refused = one.take_refused()
        assert [r.item[0] for r in refused] == [row.key for row in rows if row not in fits]
        assert (one.unacknowledged, one.buffered_bytes, one.available) == (0, 0, True)
        assert one.ends.get(("t", 0), 0) == len(fits)

    asyncio.run(run())


async def test_a_topic_that_takes_smaller_batches_gets_smaller_ones() -> None:
    log = Log(10_000)
    one = producer(log, batch_bytes=64_000)
    for n in range(5_000):
        one.add("t", 0, b"", b"x" * 100, (), n, Sender("agent"))
    await one.flush()
    assert [timestamp for _, _, timestamp in log.taken["t"]] == list(range(5_000))
    assert log.requests < 100, "54 could do; four of five batches would be refused again and again"
    assert not one.refused


async def test_a_record_that_nobody_gives_up_is_tried_until_the_topic_takes_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log(1_000)
    one = producer(log)
    for value in (b"a", b"x" * 2_000, b"b"):
        one.add("changelog", 0, b"key", value, (), 1)
    flushing = asyncio.create_task(one.flush())
    while log.requests < 20:
        await asyncio.sleep(0)
    assert [value for _, value, _ in log.taken["changelog"]] == [b"a"]
    assert not one.available
    assert not flushing.done()
    assert "produce to changelog-0: the record of key b'key' has 2003 bytes" in caplog.text
    log.limit = 10_000
    await flushing
    assert [len(value) for _, value, _ in log.taken["changelog"]] == [1, 2_000, 1]
    assert one.available


async def test_the_sink_makes_dead_letters_that_are_as_durable_as_the_rest(limits: list[str]) -> None:
    log = Log(1_000)
    sink = TopicSink(producer(log))
    headers = [("tp", b"not ours"), ("h", b"1")]
    rows = [Outgoing("t", 0, b"d-%d" % n, b"y" * size, headers, n) for n, size in enumerate((1, 950, 2, 950))]
    sink.add(rows, (), "mixer")
    await sink.flush()
    assert [value for _, value, _ in log.taken["t"]] == [b"y", b"yy"]
    assert [letter.device for letter in letters(log)] == ["d-1", "d-3"]
    assert limits == ["t"], "asked once for many"
    assert (sink.pending, sink.producer.buffered_bytes) == (0, 0)


async def test_what_was_refused_is_weighed_against_what_was_sent_before_the_flush(limits: list[str]) -> None:
    """What is sent while a flush goes on is settled by the next, though it may be refused in this one."""
    log, told = Log(1_000), []
    sink = TopicSink(producer(log))
    sink.on_settled = lambda *said: told.append(said[:3])

    def send(agent: str, *sizes: int) -> None:
        sink.add([Outgoing("t", 0, b"d", b"y" * size, (), 1) for size in sizes], (), agent)

    send("mixer", 1, 950, 1)
    send("other", 1)
    flushing = asyncio.create_task(sink.flush())
    await asyncio.sleep(0)
    send("mixer", 950, 950, 1, 1, 1)
    await flushing
    assert told == [("mixer", 3, 1), ("other", 1, 0)]
    told.clear()
    await sink.flush()
    assert told == [("mixer", 5, 2)]
    assert len(letters(log)) == 3


async def test_a_record_of_a_time_that_its_topic_does_not_take_is_a_dead_letter() -> None:
    log = Log(BATCH)
    log.latest = 2_000_000_000_000
    sink = TopicSink(producer(log))
    times = [5, 2_100_000_000_000, 6, 7, 2_100_000_000_001]
    sink.add([Outgoing("t", 0, b"d", b"y", (), ts) for ts in times], (), "mixer")
    await sink.flush()
    assert [timestamp for _, _, timestamp in log.taken["t"]] == [5, 6, 7]
    assert [letter.ts for letter in letters(log)] == [2_100_000_000_000, 2_100_000_000_001]
    assert "with the time 2100000000000 ms, its message.timestamp.after.max.ms of 1000" in letters(log)[0].detail


@pytest.mark.parametrize("every", [1, 2, 50])
async def test_many_records_of_a_time_that_is_refused_cost_a_few_requests_each(every: int) -> None:
    log = Log(BATCH)
    log.latest = 10_000
    one = producer(log)
    for n in range(2_000):
        one.add("t", 0, b"", b"x" * 150, (), 20_000 if n % every == 0 else n, Sender("agent"))
    await one.flush()
    assert [timestamp for _, _, timestamp in log.taken.get("t", [])] == [n for n in range(2_000) if n % every]
    refused = one.take_refused()
    assert len(refused) == 2_000 // every
    assert log.requests <= (4 if every < 3 else 16) * len(refused) + 20


async def test_a_letter_says_what_of_whom_and_what_to_do_and_is_the_same_again() -> None:
    found = []
    for _ in range(2):
        log = Log(1_000)
        sink = TopicSink(producer(log))
        sink.add([Outgoing("plant.out", 0, b"d-7", b"z" * 2_000, [("h", b"1")], 5)], (), "mixer")
        await sink.flush()
        found += letters(log)
    first, again = found
    assert first.id == again.id
    assert (first.device, first.stage, first.reason, first.topic, first.ts) == ("d-7", "mixer", "agent", "plant.out", 5)
    assert (first.payload, first.headers) == (b"z" * 2_000, (("h", b"1"),))
    assert first.detail == (
        "topic plant.out does not take a record of 2077 bytes, its max.message.bytes is 1000; have the agent send "
        "less, or raise it by `kafka-configs.sh --bootstrap-server nowhere:1 --alter --topic plant.out "
        "--add-config max.message.bytes=2077`"
    )


async def test_a_dead_letter_that_is_too_large_for_its_topic_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    letter = DeadLetter("id", 5, "d-7", "mixer", "agent", payload=b"z" * 300_000, detail="it broke")
    row = Outgoing(topics.dead_letters.name, 0, b"d-7", topics.dead_letters.encode(letter), (), 5)
    log = Log(BATCH, letters=200_000)
    sink = TopicSink(producer(log))
    sink.add([row], (), "mixer")
    await sink.flush()
    (cut,) = letters(log)
    assert (cut.id, cut.payload) == ("id", b"z" * KEPT_OF_LARGER)
    assert cut.detail == "it broke (of its 300000 bytes the first 65536 are kept, and no headers)"
    log.letters = 50_000
    sink.add([row], (), "mixer")
    await sink.flush()
    assert len(letters(log)) == 1
    assert "a dead letter of mixer is lost: topic tp.dlq.v1 does not take a record of" in caplog.text


async def test_a_dead_letter_of_a_time_that_its_topic_does_not_take_goes_with_the_time_of_now() -> None:
    letter = DeadLetter("id", 1 << 60, "d-7", "mixer", "agent", payload=b"z")
    log = Log(BATCH)
    log.latest = 1 << 50
    sink = TopicSink(producer(log))
    sink.add([Outgoing(topics.dead_letters.name, 0, b"d-7", topics.dead_letters.encode(letter), (), 1 << 60)], ())
    await sink.flush()
    assert letters(log) == [letter]

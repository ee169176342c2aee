"""What is added goes out in order, in batches that are repeated as they were, and strangers' offsets are seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.record import MemoryRecords

from tpstream.bus.batch import Outgoing
from tpstream.bus.producer import Producer
from tpstream.bus.topic_sink import TopicSink
from tpstream.errors import Rejected


class Log:
    """Stands where aiokafka's producer does: keeps batches as Kafka would, and fails as often as it is told."""

    def __init__(self) -> None:
        self.offsets: dict[tuple[str, int], int] = {}
        self.attempts: list[tuple[str, int, list[Any]]] = []
        self.failures = 0

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> Any:
        records = [r for batch in [MemoryRecords(bytes(builder._build())).next_batch()] for r in batch]
        taken = [(r.key, r.value, list(r.headers), r.timestamp) for r in records]
        assert builder.record_count() == len(taken)
        self.attempts.append((topic, partition, taken))
        future = asyncio.get_running_loop().create_future()
        if self.failures:
            self.failures -= 1
            future.set_exception(KafkaTimeoutError())
        else:
            base = self.offsets.get((topic, partition), 0)
            self.offsets[topic, partition] = base + len(taken)
            future.set_result(type("Metadata", (), {"offset": base}))
        return future

    async def send_and_wait(self, topic: str, *, partition: int, **record: Any) -> Any:
        self.attempts.append(
            (topic, partition, [(record["key"], record["value"], record["headers"], record["timestamp_ms"])])
        )
        base = self.offsets.get((topic, partition), 0)
        self.offsets[topic, partition] = base + 1
        return type("Metadata", (), {"offset": base})


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def producer(log: Log, monkeypatch: pytest.MonkeyPatch) -> Producer:
    sleep = asyncio.sleep
    monkeypatch.setattr("tpstream.bus.producer.asyncio.sleep", lambda seconds: sleep(0))
    one = Producer("nowhere:1", 4, batch_bytes=4_000)
    one._kafka = log  # type: ignore[assignment]
    return one


async def test_what_is_added_goes_out_in_order_and_is_acknowledged(producer: Producer, log: Log) -> None:
    told: list[Any] = []
    producer._delivered = lambda *told_: told.append(told_)
    for n in range(200):
        producer.add("t", 1, b"k%d" % n, b"v" * 50 if n % 2 else None, [("h", b"%d" % n)], n, token=n)
    await producer.flush()
    sent = [record for _, _, records in log.attempts for record in records]
    assert sent == [(b"k%d" % n, b"v" * 50 if n % 2 else None, [("h", b"%d" % n)], n) for n in range(200)]
    assert len(log.attempts) > 1, "no batch is larger than its bound"
    assert [token for _, _, tokens, _ in told for token in tokens] == list(range(200))
    assert [(topic, partition, base) for topic, partition, _, base in told] == [
        ("t", 1, sum(len(tokens) for _, _, tokens, _ in told[:n])) for n in range(len(told))
    ]
    assert (producer.unacknowledged, producer.buffered_bytes, producer.ends) == (0, 0, {("t", 1): 200})


async def test_a_batch_is_repeated_as_it_was_whatever_was_added_meanwhile(producer: Producer, log: Log) -> None:
    log.failures = 3
    producer.add("t", 0, b"a", b"1", (), 1)
    producer.add("t", 0, b"b", b"2", (), 2)
    while not log.attempts:
        await asyncio.sleep(0)
    producer.add("t", 0, b"c", b"3", (), 3)
    await producer.flush()
    both, one = [(b"a", b"1", [], 1), (b"b", b"2", [], 2)], [(b"c", b"3", [], 3)]
    assert [records for _, _, records in log.attempts] == [both, both, both, both, one]


async def test_a_record_larger_than_a_batch_goes_by_itself(producer: Producer, log: Log) -> None:
    for n, size in enumerate((10, 5_000, 10)):
        producer.add("t", 0, b"", b"x" * size, (("h", b""),), n)
    await producer.flush()
    assert [[len(value) for _, value, _, _ in records] for _, _, records in log.attempts] == [[10], [5_000], [10]]
    assert producer.buffered_bytes == 0


async def test_rows_go_where_they_say_or_where_their_key_belongs(producer: Producer, log: Log) -> None:
    rows = [
        Outgoing(topic, partition, b"key-%d" % n, b"%d" % n, [], n)
        for n, (topic, partition) in enumerate([("a", 0), ("a", None), ("b", 0), ("a", 0), ("b", None), ("a", None)])
    ]
    TopicSink(producer).add(rows, ())
    assert (producer.unacknowledged, producer.buffered_bytes) == (6, sum(len(r.key) + 1 for r in rows))
    await producer.flush()
    alone = Producer("nowhere:1", 4)
    alone._kafka = Log()  # type: ignore[assignment]
    expected: dict[tuple[str, int], list[bytes]] = {}
    for row in rows:
        expected.setdefault((row.topic, alone.add(*row)), []).append(row.value or b"")
    await alone.flush()
    sent = {(topic, partition): [value for _, value, _, _ in records] for topic, partition, records in log.attempts}
    assert sent == expected


async def test_of_rows_of_which_one_is_refused_none_is_taken(producer: Producer, log: Log) -> None:
    rows = [Outgoing("t", 0, b"", b"fine", [], 1), Outgoing("t", 0, b"", b"late", [], 1 << 63)]
    with pytest.raises(Rejected, match="t: a record with the time 9223372036854775808"):
        TopicSink(producer).add(rows, ())
    with pytest.raises(Rejected, match="t: a record of 20000000 bytes is above the limit"):
        TopicSink(producer).add([rows[0], Outgoing("t", 0, b"", b"x" * 20_000_000, [], 1)], ())
    await producer.flush()
    assert (log.attempts, producer.unacknowledged, producer.buffered_bytes) == ([], 0, 0)


@pytest.mark.parametrize(
    ("watched", "expected", "strangers", "gaps"),
    [
        (True, 0, [0, 0, 0], []),
        (True, 0, [3, 0, 2], [(0, 3), (5, 7)]),
        (True, 3, [3, 1, 0], [(4, 5)]),
        (True, None, [3, 0, 1], [(5, 6)]),  # nothing is known of what was before the first
        (True, 9, [3, 0, 0], []),  # made anew: there is less than was known
        (False, 0, [3, 0, 2], []),
    ],
)
async def test_offsets_of_others_between_ours_are_gaps_in_watched_topics(
    producer: Producer, log: Log, watched: bool, expected: int | None, strangers: list[int], gaps: list[tuple[int, int]]
) -> None:
    if watched:
        producer.watch_gaps("t")
    if expected is not None:
        producer.expect("t", 2, expected)
    for count in strangers:
        log.offsets["t", 2] = log.offsets.get(("t", 2), 0) + count
        producer.add("t", 2, b"", b"", (), 1)
        await producer.flush()
    assert producer.gaps.get(("t", 2), []) == gaps
    producer.expect("t", 2, log.offsets["t", 2])
    assert not producer.gaps.get(("t", 2))

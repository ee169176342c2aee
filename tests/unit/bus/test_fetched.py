"""Lean records: the same as aiokafka's own, whatever the offset asked for and however many are taken at once."""

from __future__ import annotations

import gc
import weakref
from itertools import islice
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus.fetched import _Lean, _Results

PLACE = TopicPartition("t", 3)


def answer(*counts: int) -> bytes:
    """The bytes of a fetch's answer: batches of so many records, with offsets that follow on each other."""
    data, offset = b"", 0
    for count in counts:
        builder = BatchBuilder(100_000, 0)
        for n in range(offset, offset + count):
            headers = [("tp", b"%d" % n)] if n % 2 else []
            builder.append(timestamp=1_000 + n, key=b"k%d" % n if n % 3 else None, value=b"v%d" % n, headers=headers)
        batch = bytearray(builder._build())
        batch[0:8] = offset.to_bytes(8, "big")
        data += bytes(batch)
        offset += count
    return data


def records(data: bytes, start: int, check: bool = True) -> PartitionRecords:
    return PartitionRecords(PLACE, MemoryRecords(data), None, start, None, None, check, 0)


def plain(record: Any) -> tuple[Any, ...]:
    return record.offset, record.timestamp, record.key, record.value, list(record.headers)


class Assigned:
    """What aiokafka asks of an assignment when records are taken."""

    def __init__(self) -> None:
        self.position = -1
        self.active = True

    def state_value(self, place: TopicPartition) -> Any:
        return self

    def consumed_to(self, offset: int) -> None:
        self.position = offset

    has_valid_position = True


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 8))
def test_they_say_what_aiokafkas_own_say(counts: list[int], start: int) -> None:
    data = answer(*counts)
    own, lean = records(data, start), _Lean.of(records(data, start))
    assert [plain(record) for record in lean] == [plain(record) for record in own]
    assert lean.next_fetch_offset == own.next_fetch_offset


def test_a_torn_batch_is_an_error() -> None:
    data = bytearray(answer(3))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        list(_Lean.of(records(bytes(data), 0)))


def test_only_the_topics_named_are_lean() -> None:
    for topics, kind in ((("t",), _Lean), (("u",), PartitionRecords)):
        results = _Results(topics)
        results[PLACE] = FetchResult(PLACE, assignment=Assigned(), partition_records=records(answer(2), 0), backoff=0)
        assert type(results[PLACE]._partition_records) is kind
    results[PLACE] = error = object()
    assert results[PLACE] is error


@pytest.mark.parametrize("read", [0, 2, 5])
def test_what_is_dropped_half_read_goes_at_once(read: int) -> None:
    """They hold megabytes: garbage is looked for seldom."""
    gc.disable()
    try:
        lean = _Lean.of(records(answer(2, 3), 0))
        assert [record.offset for record in islice(lean, read)] == list(range(read))
        gone = weakref.ref(lean)
        del lean
        assert gone() is None
    finally:
        gc.enable()

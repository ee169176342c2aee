"""Stored values: what is read back, what is older, newer or foreign, and whose word counts in a changelog."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus import stored
from tpstream.bus.changelog import fold
from tpstream.bus.position import Life, Position
from tpstream.bus.stored import OWNER, Foreign, Newer
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition

LIFE = Life(bytes([1] * 16))


class Value(msgspec.Struct):
    n: int


TABLE = Table("values", Value, due=lambda value: value.n)


def test_what_is_stored_is_read_back_with_its_head() -> None:
    data = TABLE.encode(Value(7), ((0, 5, 1), (3, 9, 0)), LIFE, stored.stamp(4, 2))
    assert stored.head(data) == (stored.stamp(4, 2), 7, LIFE)
    assert TABLE.decode(data) == (Value(7), ((0, 5, 1), (3, 9, 0)), LIFE)
    again = stored.restamp(data, stored.stamp(5, 0))
    assert stored.head(again).stamp == stored.stamp(5, 0)
    assert TABLE.decode(again) == TABLE.decode(data)


def test_the_first_format_is_read_and_written_anew() -> None:
    old = msgspec.msgpack.encode((1, LIFE, ((0, 5, 1),), {"n": 7}))
    assert stored.stamp_of(old, ()) == 0
    for data in (old, stored.restamp(old, 9)):
        assert TABLE.decode(data) == (Value(7), ((0, 5, 1),), LIFE)
    part = TablePartition(TABLE, 0, LIFE)
    part.load("k", old)
    assert part.seen("k", Position(LIFE, 0, 5, 1))
    assert not part.seen("k", Position(LIFE, 0, 6))


def test_a_newer_format_is_refused() -> None:
    newer = bytes([3]) + bytes(40)
    for read in (stored.head, TABLE.decode, lambda data: stored.stamp_of(data, ())):
        with pytest.raises(Newer, match="stored format 3 is newer"):
            read(newer)


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x01", b"\x02short", b"\x90", b'{"json": 1}' * 9, b"\x94\x07"])
def test_bytes_of_somebody_else_are_foreign(garbage: bytes) -> None:
    with pytest.raises(Foreign):
        TABLE.decode(garbage)


def test_a_value_that_cannot_be_read_begins_anew() -> None:
    part = TablePartition(TABLE, 0, LIFE)
    part.load("k", stored.pack(1, 0, LIFE, b"\xc1"))
    assert part.get("k") is None


@dataclass
class Logged:
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Any = ()


def written(offset: int, key: str, n: int | None, epoch: int, checkpoint: int) -> Logged:
    stamp = stored.stamp(epoch, checkpoint)
    if n is None:
        return Logged(offset, key.encode(), None, stored.tombstone_header(stamp))
    return Logged(offset, key.encode(), TABLE.encode(Value(n), (), LIFE, stamp))


def read(log: list[Logged], stamp: int = 0) -> dict[str, int | None]:
    return {key: None if data is None else TABLE.decode(data)[0].n for key, data in fold(log, stamp).values.items()}


def test_what_a_worker_writes_that_has_lost_its_partition_counts_for_nothing() -> None:
    log = [
        written(0, "a", 1, 1, 1),
        Logged(1, OWNER, stored.marker(stored.stamp(2, 0), b"new")),
        written(2, "a", 2, 1, 2),  # the old owner wakes up
        written(3, "b", 3, 2, 1),
        written(4, "b", None, 1, 3),
    ]
    assert read(log) == {"a": 1, "b": 3}
    folded = fold(log, 0)
    assert (folded.stamp, folded.ignored, folded.foreign) == (stored.stamp(2, 1), {"a", "b"}, 0)


def test_an_owner_says_of_when_the_values_are_that_it_brought_from_an_earlier_life() -> None:
    log = [
        Logged(0, OWNER, stored.marker(stored.stamp(2, 0), b"new", 700)),
        Logged(1, OWNER, stored.marker(stored.stamp(1, 0), b"old", 900)),  # it has lost the partition
        Logged(2, OWNER, stored.marker(stored.stamp(3, 0), b"next")),
    ]
    assert [fold(log[:count], 0).settled_at for count in range(4)] == [0, 700, 700, 700]
    assert fold(log[2:], 0).settled_at == 0


def test_a_request_that_kafka_took_late_does_not_bring_older_values_back() -> None:
    assert read([written(0, "a", 1, 1, 1), written(1, "a", 2, 1, 2), written(2, "a", 1, 1, 1)]) == {"a": 2}


def test_foreign_records_are_counted_and_left_out() -> None:
    value = written(1, "b", 1, 1, 1).value
    folded = fold([Logged(0, b"a", b"garbage"), Logged(1, b"\xff", value), Logged(2, b"\0b", value)], 0)
    assert (folded.values, folded.foreign) == ({}, 3)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.none() | st.integers(0, 9)), max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab"), st.integers(10, 19)), max_size=4),
    st.integers(0, 12),
)
def test_a_log_with_late_words_of_earlier_owners_reads_as_without(
    words: list[tuple[str, int | None]], late: list[tuple[int, str, int]], cut: int
) -> None:
    """However the log is cut into stretches that are read one after the other."""
    own = [written(0, key, n, 1 + i // 4, i % 4 + 1) for i, (key, n) in enumerate(words)]
    log: list[Logged] = []
    for i, record in enumerate(own):
        log.append(record)
        log.extend(written(0, key, n, 0, 9) for at, key, n in late if at == i)
    first = fold(log[:cut], 0)
    second = fold(log[cut:], first.stamp)
    assert {**first.values, **second.values} == fold(own, 0).values

"""A table partition against a model: batches that succeed or fail, checkpoints, timers, recovery."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus.position import Life, Position
from tpstream.bus.table import Newer, Table, TablePartition
from tpstream.errors import TpstreamError

LIFE = Life(bytes(16))
OTHER = Life(bytes([1] * 16))


class Value(msgspec.Struct):
    n: int


def partition(due: bool = False) -> TablePartition[Value]:
    table = Table("values", Value, due=(lambda value: value.n) if due else None)
    return TablePartition(table, 0, LIFE)


def at(offset: int, item: int = 0, raw: int = 0, life: Life = LIFE) -> Position:
    return Position(life, raw, offset, item)


writes = st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9)), max_size=5)


@given(st.lists(st.tuples(writes, st.booleans(), st.booleans())))
def test_failed_batches_leave_no_trace_and_checkpoints_write_the_accepted_state(
    batches: list[tuple[list[tuple[str, int | None]], bool, bool]],
) -> None:
    part, model, disk = partition(), dict[str, int](), partition()
    for batch, succeeds, checkpoint in batches:
        after = dict(model)
        for key, n in batch:
            if n is None:
                part.delete(key)
                after.pop(key, None)
            else:
                part.put(key, Value(n))
                after[key] = n
        if checkpoint:  # in the middle of a batch: what is written is the state before it
            for key, data in part.prepare().values.items():
                disk.load(key, data)
            assert {key: value.n for key, value in disk.items()} == model
        if succeeds:
            part.accept()
            model = after
        else:
            part.undo()
        assert {key: value.n for key, value in part.items()} == model
    for key, data in part.prepare().values.items():
        disk.load(key, data)
    assert {key: value.n for key, value in disk.items()} == model


@pytest.mark.parametrize(
    ("folded", "asked", "seen"),
    [
        ([at(5)], at(5), True),
        ([at(5)], at(4, item=9), True),
        ([at(5)], at(5, item=1), False),
        ([at(5, item=2)], at(5, item=1), True),
        ([at(5)], at(6), False),
        ([at(5)], at(1, raw=1), False),  # a mark says nothing about another partition
        ([at(5), at(1, raw=1)], at(1, raw=1), True),
        ([at(5), at(1, raw=1), at(6)], at(5), True),
        ([at(5)], at(5, life=OTHER), False),  # nor about another life
        ([], at(0), False),
    ],
)
def test_marks(folded: list[Position], asked: Position, seen: bool) -> None:
    part = partition()
    for position in folded:
        part.put("k", Value(1), position)
    assert part.seen("k", asked) is seen


def test_marks_survive_the_disk_but_not_a_new_life() -> None:
    part = partition()
    part.put("k", Value(1), at(7))
    part.accept()
    data = part.prepare().values["k"]
    same = TablePartition(part.table, 0, LIFE)
    same.load("k", data)
    assert same.seen("k", at(7))
    new = TablePartition(part.table, 0, OTHER)
    new.load("k", data)
    assert new.get("k") == Value(1)
    assert not new.seen("k", at(7, life=OTHER))
    new.put("k", Value(2), at(1, life=OTHER))
    assert new.seen("k", at(1, life=OTHER))
    assert not new.seen("k", at(7, life=OTHER))


def test_timers_follow_the_values() -> None:
    part = partition(due=True)
    part.put("a", Value(10))
    part.put("b", Value(20))
    part.put("a", Value(30))
    part.accept()
    assert part.next_due() == 20
    assert part.due(25) == ["b"]
    part.undo()  # the batch that asked failed: it will ask again
    assert part.next_due() == 20
    assert part.due(30) == ["b", "a"]
    part.accept()
    assert part.next_due() is None


def test_a_newer_format_and_foreign_bytes_are_refused() -> None:
    part = partition()
    newer = msgspec.msgpack.encode((2, LIFE, (), Value(1)))
    with pytest.raises(TpstreamError, match="format 2 is newer"):
        part.load("k", newer)
    with pytest.raises(TpstreamError, match="cannot be read"):
        part.load("k", b"\xff\x00")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 50), st.integers(0, 60))))
def test_timers_against_a_model(steps: list[tuple[str, int | None, int]]) -> None:
    part, pending = partition(due=True), dict[str, int]()
    for key, at, clock in steps:
        if at is None:
            part.delete(key)
            pending.pop(key, None)
        else:
            part.put(key, Value(at))
            pending[key] = at
        part.accept()
        assert part.next_due() == min(pending.values(), default=None)
        expected = sorted((at, key) for key, at in pending.items() if at <= clock)
        assert sorted(part.due(clock)) == sorted(key for _, key in expected)
        part.accept()
        pending = {key: at for key, at in pending.items() if at > clock}


def test_a_value_that_moves_on_with_each_write_keeps_one_timer() -> None:
    part = partition(due=True)
    for n in range(1_000):
        part.put("k", Value(n))
    assert len(part._timers) == 1
    assert part.next_due() == 999


@pytest.mark.parametrize("stored", [(99, bytes(16), (), {"n": 1}), (99, "another shape"), [99]])
def test_a_newer_format_is_told_from_garbage_whatever_its_shape(stored: object) -> None:
    table = Table("values", Value)
    with pytest.raises(Newer, match="stored format 99 is newer"):
        table.decode(msgspec.msgpack.encode(stored))
    for garbage in (b"", b"\xc1", b"\x01", b"\x90", msgspec.msgpack.encode(["x"])):
        with pytest.raises(TpstreamError, match="cannot be read") as caught:
            table.decode(garbage)
        assert not isinstance(caught.value, Newer)

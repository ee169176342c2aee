"""A table partition against a model: batches that succeed or fail, checkpoints, timers, recovery."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tpstream.bus import topics
from tpstream.bus.position import Life, Position
from tpstream.bus.state import PartitionState
from tpstream.bus.stored import NEVER
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition, Unstorable
from tpstream.errors import TpstreamError
from tpstream.testing import make_batch

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
            for key, data in part.prepare().items():
                disk.load(key, data)
            assert {key: value.n for key, value in disk.items()} == model
        if succeeds:
            part.accept()
            model = after
        else:
            part.undo()
        assert {key: value.n for key, value in part.items()} == model
    for key, data in part.prepare().items():
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
    data = dict(part.prepare().items())["k"]
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


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.none() | st.integers(0, 50).map(lambda at: at * 130),
            st.integers(0, 60).map(lambda at: at * 130),
        )
    )
)
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
        assert part.quiet_until() <= min(pending.values(), default=NEVER)
        assert part.next_due() == min(pending.values(), default=None)
        assert part.quiet_until() == min(pending.values(), default=NEVER)
        expected = sorted((at, key) for key, at in pending.items() if at <= clock)
        assert sorted(part.due(clock)) == sorted(key for _, key in expected)
        part.accept()
        pending = {key: at for key, at in pending.items() if at > clock}


def test_the_keys_of_a_second_are_looked_at_once() -> None:
    looked: list[int] = []

    def due(value: Value) -> int:
        looked.append(value.n)
        return value.n

    part = TablePartition(Table("values", Value, due=due), 0, LIFE)
    for n in range(1_000):
        part.put(str(n), Value(5_000 + n))
    assert part.quiet_until() == 5_000
    looked.clear()
    assert [len(part.due(5_000 + n)) for n in range(1_000)] == [1] * 1_000
    assert len(looked) < 4_000


def test_a_value_that_moves_on_with_each_write_keeps_one_timer() -> None:
    part = partition(due=True)
    for n in range(0, 100_000, 100):
        part.put("k", Value(n))
    assert sum(map(len, part._timers._buckets.values())) == 1
    assert part.next_due() == 99_900


def test_a_key_that_is_no_text_is_refused_by_name() -> None:
    with pytest.raises(TpstreamError, match="table values: a key is bytes b'k', not str"):
        partition().put(b"k", Value(1))  # type: ignore[arg-type]


@dataclass
class Live:
    """A value that is changed in place."""

    n: int
    seen: list[int]


live_writes = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=5)


copies = {
    "copies": {"copy": lambda value: Live(value.n, list(value.seen))},
    "made again of what was kept": {
        "copy": lambda value: (value.n, *value.seen),
        "restore": lambda kept: Live(kept[0], list(kept[1:])),
    },
}


@pytest.mark.parametrize("how", copies.values(), ids=copies)
@given(st.lists(st.tuples(live_writes, st.booleans(), st.booleans())))
def test_live_values_are_put_back_and_stored_as_if_they_had_been_replaced(
    how: dict[str, Any], batches: list[tuple[list[tuple[str, int]], bool, bool]]
) -> None:
    table = Table("live", Live, **how)
    part, disk = TablePartition(table, 0, LIFE), TablePartition(table, 0, LIFE)
    model: dict[str, list[int]] = {}
    for batch, succeeds, checkpoint in batches:
        after = {key: list(seen) for key, seen in model.items()}
        for key, n in batch:
            cell = part.cell(key)
            part.touch(cell)
            if cell.value is None:
                cell.value = Live(0, [])
            cell.value.n += 1
            cell.value.seen.append(n)
            after.setdefault(key, []).append(n)
        if checkpoint:
            for key, data in part.prepare().items():
                disk.load(key, data)
            assert {key: value.seen for key, value in disk.items()} == model
        part.accept() if succeeds else part.undo()
        model = after if succeeds else model
        assert {key: (value.n, value.seen) for key, value in part.items()} == {
            key: (len(seen), seen) for key, seen in model.items()
        }


class LargerThanMemory(RuleBasedStateMachine):
    """Batches, checkpoints and crashes over a real RocksDB, with room for few keys in memory."""

    keys = st.sampled_from([f"k{n}" for n in range(12)])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.table = Table("values", Value, due=lambda value: value.n if value.n else None)
        self.accepted: dict[str, tuple[int, int]] = {}
        self.durable: dict[str, tuple[int, int]] = {}
        self.offset = 0
        self.open()

    def open(self) -> None:
        self.state = PartitionState(Path(self.folder.name) / "0")
        self.part = TablePartition(self.table, 0, LIFE, self.state, bound=3)

    @rule(batch=st.lists(st.tuples(keys, st.none() | st.integers(0, 5_000)), max_size=4), succeeds=st.booleans())
    def batch(self, batch: list[tuple[str, int | None]], succeeds: bool) -> None:
        after = dict(self.accepted)
        for key, n in batch:
            self.offset += 1
            if n is None:
                self.part.delete(key)
                after.pop(key, None)
            else:
                self.part.put(key, Value(n), at(self.offset))
                after[key] = (n, self.offset)
        self.part.accept() if succeeds else self.part.undo()
        self.accepted = after if succeeds else self.accepted

    @rule(key=keys)
    def read(self, key: str) -> None:
        n, offset = self.accepted.get(key, (None, -1))
        value = self.part.get(key)
        assert (value and value.n) == n
        if n is not None:
            assert self.part.seen(key, at(offset))
            assert not self.part.seen(key, at(offset + 1))

    @rule()
    def read_all(self) -> None:
        assert {key: value.n for key, value in self.part.items()} == {k: n for k, (n, _) in self.accepted.items()}

    @rule(fails=st.booleans(), between=st.lists(keys, max_size=3))
    def checkpoint(self, fails: bool, between: list[str]) -> None:
        durable = dict(self.accepted)
        prepared = self.part.prepare(stamp=self.offset)
        self.batch([(key, 7) for key in between], True)  # agents go on meanwhile
        if fails:
            self.part.take_back(prepared)
            return
        self.state.write(LIFE, {"values": prepared}, {})
        self.part.written(prepared)
        self.durable = durable

    @rule()
    def crash(self) -> None:
        self.state.close()
        self.accepted = dict(self.durable)
        self.open()

    @rule(clock=st.integers(0, 6_000))
    def due(self, clock: int) -> None:
        pending = {key: n for key, (n, _) in self.accepted.items() if n}
        assert self.part.next_due() == min(pending.values(), default=None)
        expected = [key for _, key in sorted((n, key) for key, n in pending.items() if n <= clock)]
        assert self.part.due(clock) == expected
        for key in expected:
            self.part.put(key, Value(0))
            self.accepted[key] = (0, self.accepted[key][1])
        self.part.accept()

    @invariant()
    def few_are_in_memory(self) -> None:
        unsaved = sum(cell.dirty or cell.writing for cell in self.part.cells.values())
        assert len(self.part.cells) <= 3 + unsaved + 12  # one batch, or one look at all, may bring any number

    def teardown(self) -> None:
        self.state.close()
        self.folder.cleanup()


TestLargerThanMemory = LargerThanMemory.TestCase
TestLargerThanMemory.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_keys_leave_memory_and_come_back(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    part = TablePartition(Table("values", Value), 0, LIFE, state, bound=100)
    for n in range(1_000):
        part.put(f"k{n}", Value(n), at(n))
        part.accept()
        part.trim()
        if n % 10 == 0:
            prepared = part.prepare()
            state.write(LIFE, {"values": prepared}, {})
            part.written(prepared)
    assert len(part.cells) <= 130
    assert all(part[f"k{n}"].n == n for n in range(1_000))
    assert part.seen("k0", at(0))
    state.close()


def test_a_value_that_cannot_be_stored_is_named_and_nothing_is_taken() -> None:
    part = partition()
    part.put("a", Value(1))
    part.put("b", Value(1 << 70))
    part.accept()
    for _ in range(2):  # a second attempt must not find it gone
        with pytest.raises(Unstorable, match="table values, partition 0: the value of key 'b' cannot be stored"):
            part.prepare()
    part.put("b", Value(2))
    part.accept()
    assert dict(part.prepare().items()).keys() == {"a", "b"}


def test_a_value_that_another_rule_makes_due_earlier_is_due_then(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    before = TablePartition(Table("values", Value), 0, LIFE, state)
    before.put("k", Value(7))
    before.accept()
    state.write(LIFE, {"values": before.prepare()}, {})
    after = TablePartition(Table("values", Value, due=lambda value: value.n), 0, LIFE, state)
    assert after.get("k") == Value(7)
    assert after.due(7) == ["k"]
    state.close()


def due_when_even(value: Value) -> int | None:
    return value.n if value.n % 2 == 0 else None


def test_a_table_that_is_given_a_due_asks_for_what_was_stored_without_one(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    before = TablePartition(Table("values", Value), 0, LIFE, state)
    for n in range(1, 9):
        before.put(f"k{n}", Value(n))
    before.accept()
    state.write(LIFE, {"values": dict(before.prepare().items()) | {"foreign": b"?"}}, {})
    table = Table("values", Value, due=due_when_even)
    for _ in range(2):  # also when it was started before and nobody has looked at a key
        after = TablePartition(table, 0, LIFE, state)
        assert not after.cells, "no value stays in memory for that"
        assert after.due(5) == ["k2", "k4"]
    for key in ("k2", "k4"):
        after.put(key, Value(9))
    after.accept()
    state.write(LIFE, {"values": dict(after.prepare().items()) | {"foreign": None}}, {})

    decoded: list[bytes] = []
    decode = table.decode
    table.decode = lambda data: decoded.append(data) or decode(data)  # type: ignore[method-assign]
    once_more = TablePartition(table, 0, LIFE, state)
    assert len(decoded) == 6, "those that were written by the new rule say when they are due, or that they never are"
    assert once_more.due(100) == ["k6", "k8"]
    assert once_more.get("k2") == Value(9)
    assert once_more.cells["k2"].armed == once_more.cells["k6"].armed == NEVER
    state.close()


@pytest.mark.parametrize(("before", "after"), [(3_600, 600), (600, 3_600), (3_600, 3_600), (100, 101)])
def test_a_rule_that_changes_between_two_versions_leaves_no_key_without_a_timer(
    tmp_path: Path, before: int, after: int
) -> None:
    def table(seconds: int) -> Table[Value]:
        return Table("values", Value, due=lambda value: value.n + seconds * 1_000)

    state = PartitionState(tmp_path / "0")
    earlier = TablePartition(table(before), 0, LIFE, state)
    keys = [f"k{n}" for n in range(5)]
    for n, key in enumerate(keys):
        earlier.put(key, Value(n * 1_300), at(n))
    earlier.accept()
    state.write(LIFE, {"values": earlier.prepare()}, {})

    part = TablePartition(table(after), 0, LIFE, state, bound=2)
    due = part.due(min(before, after) * 1_000 - 1)  # looks at some of them, and they leave memory again
    part.accept()
    part.trim()
    for _ in range(3):
        part.put("other", Value(1 << 50))
        part.accept()
        part.trim()
        prepared = part.prepare()
        state.write(LIFE, {"values": prepared}, {})
        part.written(prepared)
    due += part.due(after * 1_000 - 1)
    part.accept()
    assert due == []
    assert part.due(max(before, after) * 1_000 + 6_000) == keys


def test_keys_that_come_back_from_disk_by_a_later_rule_are_due_once_more(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    earlier = TablePartition(Table("values", Value, due=lambda value: value.n + 1_000), 0, LIFE, state)
    earlier.put("a", Value(0), at(1))
    earlier.accept()
    state.write(LIFE, {"values": earlier.prepare()}, {})
    part = TablePartition(Table("values", Value, due=lambda value: value.n + 9_000), 0, LIFE, state, bound=0)
    assert part.due(5_000) == []  # by the earlier rule it was due
    for _ in range(2):
        part.accept()
        part.trim()  # it leaves memory, unwritten
        part.written(part.prepare())
    assert not part.cells
    assert part.get("a") == Value(0)
    assert part.due(10_000) == ["a"]


def test_a_table_that_its_agent_does_not_declare_is_named_with_what_to_do() -> None:
    table, other = Table("counts", Value), Table("others", Value)
    batch = make_batch(topics.uplink_telemetry, [], tables=[table])
    assert table.of(batch).get("k") is None
    other.partitions[0] = TablePartition(other, 0, LIFE)  # another agent of the worker has it
    with pytest.raises(TpstreamError, match=r"table others: agent test does not declare it; add `tables=\(others,\)`"):
        other.of(batch)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (7, "table values: a key is int 7, not str"),
        ("\ud800", "has half a pair"),
        ("\0owner", "begins with a zero character"),
        ("\0", "begins with a zero character"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_what_can_be_no_key_is_refused_in_the_handler(tmp_path: Path, key: Any, said: str, stored: bool) -> None:
    """Not when it is to be written, where it would end the worker, or be taken for tpstream's own."""
    state = PartitionState(tmp_path / "0")
    if stored:
        state.write(LIFE, {"values": {"k": b"?"}}, {})
    part = TablePartition(Table("values", Value), 0, LIFE, state)
    for attempt in (part.get, part.cell, lambda key: part.put(key, Value(1)), part.delete, lambda key: key in part):
        with pytest.raises(TpstreamError, match=said):
            attempt(key)
    for odd in ("", "a\0b", "😀" * 32, " "):
        part.put(odd, Value(2))
    part.accept()
    state.close()

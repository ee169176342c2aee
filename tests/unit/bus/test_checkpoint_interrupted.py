"""A checkpoint that ends early forgets nothing, and does not go on with partitions that were let go."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tpstream.bus.agent import Agent
from tpstream.bus.changelog import Changelogs, Superseded
from tpstream.bus.checkpoint import Checkpoint
from tpstream.bus.lane import Lane
from tpstream.bus.position import Life, Position
from tpstream.bus.progress import Place
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.bus.topics import uplink_raw
from tpstream.errors import Unavailable
from tpstream.settings import Settings

LIFE = Life(bytes([1] * 16))
CHANGELOG = ("g-counts-changelog", 0)


class Count(msgspec.Struct):
    n: int


class Log:
    """A changelog that takes everything at once; a sink, too, that is away as long as `away` is set."""

    name = "log"
    pending = 0
    largest = 1_000

    def __init__(self) -> None:
        self.ends: dict[Place, int] = {}
        self.values: dict[str, bytes | None] = {}
        self.gaps: dict[Place, list[tuple[int, int]]] = {}
        self.away = False

    def watch_gaps(self, topic: str) -> None: ...

    def add(self, topic: str, partition: int, key: bytes, value: bytes | None, *rest: Any) -> None:
        self.values[key.decode()] = value
        self.ends[topic, partition] = self.ends.get((topic, partition), 0) + 1

    async def flush(self) -> None:
        if self.away:
            raise Unavailable("the log is away")

    async def close(self) -> None: ...


class Bench:
    """A checkpoint over one table partition, and commits that can be refused."""

    def __init__(self, folder: Path) -> None:
        self.table = Table("counts", Count)
        self.log = Log()
        self.refuse = False
        self.committed: list[Mapping[Place, int]] = []
        agent = Agent("count", self.handler, (uplink_raw,), (self.table,), "process")
        services: Any = SimpleNamespace(settings=Settings.load({}))
        self.lane = Lane([agent], services, self.log)
        self.member = True
        log: Any = self.log
        self.changelogs = Changelogs("nowhere:1", log, "g", [self.table])
        self.checkpoint = Checkpoint(
            self.lane, log, [log], self.changelogs, self.commit, self.fence, lambda sink, error: None
        )
        self.folder = folder
        self.begin()

    async def handler(self, batch: Any) -> None: ...

    def begin(self) -> None:
        self.table.partitions[0] = TablePartition(self.table, 0, LIFE)
        self.state = PartitionState(self.folder / "0")
        self.changelogs.epochs[0] = 1
        self.checkpoint.states = {0: self.state}

    async def fence(self) -> None:
        if not self.member:
            raise Superseded("no member of its group any more")

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        if self.refuse:
            raise Superseded("offsets were not committed")
        self.committed.append(offsets)

    def write(self, key: str, offset: int) -> None:
        part = self.table.at(0)
        part.put(key, Count(offset), Position(LIFE, 0, offset))
        part.accept()

    def acknowledge(self, offset: int) -> None:
        self.lane.assign([(uplink_raw.name, 0)], LIFE)
        progress = self.lane.progress[uplink_raw.name, 0]
        progress.done["count"], progress.committed = offset, 0

    def on_disk(self) -> set[str]:
        return {key for key, _ in self.state.values("counts")}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_what_a_refused_commit_had_prepared_is_written_by_the_next_checkpoint(bench: Bench) -> None:
    bench.write("a", 1)
    bench.acknowledge(2)
    bench.refuse = True
    with pytest.raises(Superseded):
        await bench.checkpoint.take()
    bench.refuse = False
    bench.write("b", 2)
    await bench.checkpoint.take()
    # The disk says how far it is in the changelog: whatever stands before that must be on it.
    assert bench.state.meta.offsets == {"counts": bench.log.ends[CHANGELOG]}
    assert bench.on_disk() == {"a", "b"}


async def test_what_a_cancelled_checkpoint_had_prepared_is_written_by_the_next_one(bench: Bench) -> None:
    bench.write("a", 1)
    bench.log.away = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bench.checkpoint.take()
    bench.log.away = False
    await bench.checkpoint.take()
    assert bench.on_disk() == {"a"}
    assert not bench.checkpoint.failing


async def test_a_checkpoint_does_not_go_on_after_its_partitions_were_let_go(bench: Bench) -> None:
    bench.write("a", 1)
    bench.acknowledge(2)
    bench.log.away = True
    held = asyncio.create_task(bench.checkpoint.take())
    while not bench.checkpoint.failing:
        await asyncio.sleep(0)
    await bench.lane.drain(1.0)
    bench.lane.release()
    bench.checkpoint.let_go()
    bench.begin()  # the same partition comes back: to its changelog, offset and disk the old cut is nothing
    bench.log.away = False
    with pytest.raises(Superseded):
        await held
    assert bench.log.values == {}
    assert bench.committed == []
    await bench.checkpoint.take()
    assert bench.on_disk() == set()


async def test_a_checkpoint_ends_where_its_partitions_are_let_go_between_two_of_them(bench: Bench) -> None:
    bench.write("a", 1)
    bench.acknowledge(2)
    first, other = bench.table.at(0), PartitionState(bench.folder / "1")
    bench.table.partitions[1] = TablePartition(bench.table, 1, LIFE)
    bench.changelogs.epochs[1] = 1
    bench.checkpoint.states[1] = other
    held = asyncio.create_task(bench.checkpoint.take())
    while first.waiting:
        await asyncio.sleep(0)
    bench.checkpoint.let_go()
    with pytest.raises(Superseded):
        await held
    assert (bench.log.values, bench.committed) == ({}, [])


async def test_no_more_is_said_in_a_changelog_whose_partitions_were_let_go_between_two_chunks(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tpstream.bus.changelog.CHUNK", 2)
    for n, key in enumerate("abcde"):
        bench.write(key, n + 1)
    bench.acknowledge(6)

    async def flush() -> None:
        if bench.log.values:
            bench.checkpoint.let_go()

    monkeypatch.setattr(bench.log, "flush", flush)
    with pytest.raises(Superseded):
        await bench.checkpoint.take()
    assert (set(bench.log.values), bench.committed) == ({"a", "b"}, [])


async def test_a_partition_goes_on_while_another_is_cut_and_both_are_whole(bench: Bench) -> None:
    other = PartitionState(bench.folder / "1")
    bench.table.partitions[1] = later = TablePartition(bench.table, 1, LIFE)
    bench.changelogs.epochs[1] = 1
    bench.checkpoint.states[1] = other
    bench.lane.assign([(uplink_raw.name, 0), (uplink_raw.name, 1)], LIFE)
    for progress in bench.lane.progress.values():
        progress.done["count"], progress.committed = 2, 0
    bench.write("a", 1)
    held = asyncio.create_task(bench.checkpoint.take())
    while bench.table.at(0).waiting:
        await asyncio.sleep(0)
    for part in (bench.table.at(0), later):  # one is cut already, the other is not
        part.put("b", Count(2), Position(LIFE, part.partition, 2))
        part.accept()
        bench.lane.progress[uplink_raw.name, part.partition].done["count"] = 3
    await held
    assert bench.committed == [{(uplink_raw.name, 0): 2, (uplink_raw.name, 1): 3}]
    assert (bench.on_disk(), {key for key, _ in other.values("counts")}) == ({"a"}, {"b"})
    await bench.checkpoint.take()
    assert bench.committed[1:] == [{(uplink_raw.name, 0): 3}]
    assert bench.on_disk() == {"a", "b"}


async def test_a_worker_that_lost_its_group_says_nothing_to_anybody(bench: Bench) -> None:
    bench.write("a", 1)
    bench.acknowledge(2)
    bench.member = False
    with pytest.raises(Superseded):
        await bench.checkpoint.take()
    assert (bench.log.values, bench.committed, bench.on_disk()) == ({}, [], set())


async def test_each_step_is_told_of_once_it_is_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[tuple[str, bool, bool, bool]] = []

    async def note(step: str) -> None:
        reached.append((step, bool(bench.log.values), bool(bench.committed), bool(bench.on_disk())))

    monkeypatch.setattr(bench.checkpoint, "reached", note)
    bench.write("a", 1)
    bench.acknowledge(2)
    await bench.checkpoint.take()
    assert reached == [
        ("fence", False, False, False),
        ("flush", False, False, False),
        ("changelog", True, False, False),
        ("commit", True, True, False),
        ("state", True, True, True),
    ]


async def test_a_value_that_kafka_will_not_take_holds_the_checkpoint_and_says_which(bench: Bench) -> None:
    bench.log.largest = 10
    bench.write("a", 1)
    bench.acknowledge(2)
    held = asyncio.create_task(bench.checkpoint.take())
    while not bench.checkpoint.failing:
        await asyncio.sleep(0)
    assert "table counts, partition 0: the value of key 'a' has" in bench.checkpoint.failing
    assert (bench.log.values, bench.committed, bench.on_disk()) == ({}, [], set())
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)


async def test_a_value_that_cannot_be_encoded_holds_the_checkpoint_without_losing_the_others(bench: Bench) -> None:
    bench.write("a", 1)
    bench.table.at(0).put("b", Count(1 << 70))
    bench.table.at(0).accept()
    bench.acknowledge(2)
    running = asyncio.create_task(bench.checkpoint.run(0.0))
    while not bench.checkpoint.failing:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert "the value of key 'b' cannot be stored" in bench.checkpoint.failing
    assert (bench.log.values, bench.committed, bench.on_disk()) == ({}, [], set())
    bench.table.at(0).put("b", Count(2))
    bench.table.at(0).accept()
    while not bench.committed:
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert set(bench.log.values) == {"a", "b"}

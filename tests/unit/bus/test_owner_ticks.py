"""When the owner of a partition appends a tick, and when it does not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tpstream.bus.agent import Agent
from tpstream.bus.lane import Lane
from tpstream.bus.owner import PartitionOwner
from tpstream.bus.position import Life
from tpstream.bus.progress import Progress
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.bus.topics import declare, uplink_raw

LIFE = Life(bytes(16))


class Due(msgspec.Struct):
    at: int


class Appended:
    def __init__(self) -> None:
        self.available = True
        self.times: list[int] = []
        self.topics: list[str] = []

    def add(self, topic: str, partition: int, key: bytes, value: bytes, headers: Any, timestamp: int) -> int:
        self.times.append(timestamp)
        self.topics.append(topic)
        return partition


class Bench:
    """One owned partition, whose clock stands at 0, with one value that is due at `at`."""

    def __init__(self, at: int) -> None:
        self.table = Table("due", Due, due=lambda value: value.at)
        part = self.table.partitions[0] = TablePartition(self.table, 0, LIFE)
        part.put("key", Due(at))
        self.raw = Appended()
        services: Any = None
        sink: Any = None
        lane = Lane([], services, sink)
        lane.progress[uplink_raw.name, 0] = Progress()
        self.owner = PartitionOwner(lane, self.raw, [self.table])  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    return Bench(at=10_000)


def test_it_comes_when_something_is_due_and_once_a_second(bench: Bench) -> None:
    assert [bench.owner.tick(now) for now in (9_999, 10_000, 10_999, 11_000)] == [0, 1, 0, 1]
    assert bench.raw.times == [10_000, 11_000]


def test_a_clock_that_is_put_back_holds_no_tick_up(bench: Bench) -> None:
    assert bench.owner.tick(3_700_000) == 1
    assert bench.owner.tick(100_000) == 1


def test_none_piles_up_while_kafka_is_away(bench: Bench) -> None:
    bench.raw.available = False
    assert sum(bench.owner.tick(now) for now in range(10_000, 100_000, 1_000)) == 0
    bench.raw.available = True
    assert bench.owner.tick(100_000) == 1


def test_a_users_topic_gets_ticks_of_its_own_where_it_is_quiet() -> None:
    bench = Bench(at=10_000)
    users = Table("windows-plant", Due, due=lambda value: value.at)
    users.partitions[0] = TablePartition(users, 0, LIFE)
    users.at(0).put("key", Due(5_000))

    async def handler(batch: Any) -> None: ...

    plant = declare("plant", dict, ticks=True)
    services: Any = None
    lane = Lane([Agent("windows-plant", handler, (plant,), (users,), "process")], services, services)
    raw, own = lane.progress[uplink_raw.name, 0], lane.progress["plant", 0] = Progress(), Progress()
    owner = PartitionOwner(lane, bench.raw, [bench.table, users])  # type: ignore[arg-type]
    assert owner.tick(5_000) == 1
    assert bench.raw.topics == ["plant"]
    own.buffered = 1
    assert owner.tick(6_000) == 0
    own.buffered, own.behind_since = 0, 1.0
    assert owner.tick(7_000) == 0
    own.behind_since, own.clock, raw.clock = 0.0, 7_500, 7_500
    assert owner.tick(8_000) == 1
    assert owner.tick(10_000) == 2
    assert bench.raw.topics == ["plant", "plant", uplink_raw.name, "plant"]


def test_a_users_topic_whose_other_readers_might_mind_gets_none() -> None:
    bench = Bench(at=10_000)
    users = Table("windows-plant", Due, due=lambda value: value.at)
    users.partitions[0] = TablePartition(users, 0, LIFE)
    users.at(0).put("key", Due(5_000))

    async def handler(batch: Any) -> None: ...

    services: Any = None
    lane = Lane([Agent("windows-plant", handler, (declare("plant", dict),), (users,), "process")], services, services)
    lane.progress["plant", 0] = Progress()
    owner = PartitionOwner(lane, bench.raw, [bench.table, users])  # type: ignore[arg-type]
    assert owner.tick(60_000) == 0
    assert bench.raw.topics == []

"""Changelogs on a broker: one owner's word counts, whoever else writes; recovery reads it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from rocksdict import WriteBatch

from tpstream.bus import stored
from tpstream.bus.changelog import Changelogs, Superseded
from tpstream.bus.position import Life, Position
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.reader import read_to_end
from tpstream.bus.recovery import recover
from tpstream.bus.standby import Standby
from tpstream.bus.state import Meta, PartitionState
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.bus]

LIFE, NEXT = Life(bytes([1] * 16)), Life(bytes([2] * 16))


class Value(msgspec.Struct):
    n: int


class Owner:
    """A worker as its changelog sees it: a state folder, a producer, a table of one partition."""

    def __init__(self, settings: Settings, folder: Path, life: Life = LIFE) -> None:
        self.settings = settings
        self.life = life
        self.table = Table("values", Value)
        self.state = PartitionState(folder)
        self.producer = Producer(settings.bootstrap, settings.partitions)
        self.changelogs = Changelogs(settings.bootstrap, self.producer, group(settings), [self.table])

    async def begin(self) -> None:
        """Read the changelog to its end and become its owner."""
        await self.producer.start()
        ends = await recover(self.settings.bootstrap, group(self.settings), self.life, [self.table], {0: self.state})
        self.part = self.table.partitions[0] = TablePartition(self.table, 0, self.life, self.state)
        await self.changelogs.begin({0: self.state}, ends)

    async def write(self, **values: int | None) -> None:
        """A checkpoint of these values: changelog, the look for strangers, disk."""
        for key, n in values.items():
            if n is None:
                self.part.delete(key)
            else:
                self.part.put(key, Value(n), Position(self.life, 0, n))
        self.part.accept()
        self.changelogs.next()
        stamp = self.changelogs.stamp(0)
        prepared = self.part.prepare(stamp)
        await self.changelogs.write({("values", 0): prepared}, lambda: None)
        await self.changelogs.check()
        ends = self.changelogs.ends(["values"], 0)
        self.state.write(self.life, {"values": prepared}, ends, {"values": stamp})
        self.part.written(prepared)

    async def stop(self) -> None:
        await self.producer.stop()
        self.state.close()


@asynccontextmanager
async def owner(settings: Settings, folder: Path, life: Life = LIFE) -> AsyncIterator[Owner]:
    made = Owner(settings, folder, life)
    await made.begin()
    try:
        yield made
    finally:
        await made.stop()


def group(settings: Settings) -> str:
    """A group of the test's own."""
    return f"g-{settings.data_dir.name}"


def changelog(settings: Settings) -> str:
    return f"{group(settings)}-values-changelog"


@pytest.fixture
async def settings(kafka: Any) -> Settings:
    found: Settings = kafka.settings()
    await provision(found, changelogs=[changelog(found)], wait=20)
    return found


async def read(settings: Settings, folder: Path, life: Life = LIFE) -> dict[str, int]:
    """What a worker with an empty disk would recover."""
    table = Table("values", Value)
    state = PartitionState(folder)
    try:
        await recover(settings.bootstrap, group(settings), life, [table], {0: state})
        return {key: table.decode(data)[0].n for key, data in state.values("values")}
    finally:
        state.close()


async def test_a_lost_disk_comes_back_from_the_changelog(settings: Settings, tmp_path: Path) -> None:
    async with owner(settings, tmp_path / "a") as first:
        await first.write(a=1, b=2, c=3)
        await first.write(a=4, b=None)
    async with owner(settings, tmp_path / "b") as second:
        assert dict(second.part.items()) == {"a": Value(4), "c": Value(3)}
        assert second.part.seen("a", Position(LIFE, 0, 4))
        assert second.changelogs.epochs[0] == 2
        await second.write(a=5)
    assert await read(settings, tmp_path / "c") == {"a": 5, "c": 3}


async def test_an_owner_that_wakes_up_after_another_began_is_told_and_harms_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    async with owner(settings, tmp_path / "a") as zombie, owner(settings, tmp_path / "b") as successor:
        # The zombie's records stand between the successor's marker and its first values.
        with pytest.raises(Superseded, match="owner of epoch 2, ours is 1"):
            await zombie.write(a=100, z=100)
        assert await read(settings, tmp_path / "c") == {}
        await successor.write(b=1)
        assert successor.part.waiting == 2, "the keys that the stranger wrote are to be written again"
        await successor.write(a=2)
        # Without them compaction would keep the stranger's word as the last one.
        log = await everything(settings)
        assert sorted((key, epoch) for key, epoch in log[-2:]) == [("a", 2), ("z", 2)]
    assert await read(settings, tmp_path / "d") == {"a": 2, "b": 1}


async def everything(settings: Settings) -> list[tuple[str, int]]:
    found = []
    async for _, records in read_to_end(settings.bootstrap, {TopicPartition(changelog(settings), 0): 0}):
        found += [((r.key or b"").decode(), stored.stamp_of(r.value, r.headers) >> 32) for r in records]
    return found


async def test_two_that_begin_at_the_same_time_do_not_share_an_epoch(settings: Settings, tmp_path: Path) -> None:
    first, second = Owner(settings, tmp_path / "a"), Owner(settings, tmp_path / "b")
    await first.begin()
    # The second has read the changelog before the first began.
    await second.producer.start()
    second.part = second.table.partitions[0] = TablePartition(second.table, 0, LIFE, second.state)
    await second.changelogs.begin({0: second.state}, {(changelog(settings), 0): 0})
    assert (first.changelogs.epochs[0], second.changelogs.epochs[0]) == (1, 2)
    await second.write(a=1)
    with pytest.raises(Superseded):
        await first.write(a=2)
    await first.stop()
    await second.stop()
    assert await read(settings, tmp_path / "c") == {"a": 1}


async def test_values_of_an_earlier_life_are_written_to_the_next_ones_changelog(
    fresh_kafka: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = fresh_kafka.settings()
    await provision(settings, changelogs=[changelog(settings)], wait=20)
    async with owner(settings, tmp_path / "a") as first:
        await first.write(a=1, b=2)
    fresh_kafka.new_life()
    await provision(settings, changelogs=[changelog(settings)], wait=20)
    async with owner(settings, tmp_path / "a", NEXT) as again:
        assert dict(again.part.items()) == {"a": Value(1), "b": Value(2)}
        assert not again.part.seen("a", Position(NEXT, 0, 1)), "its marks mean nothing any more"
        await again.write(a=3)
    assert "NEW LIFE" in caplog.text
    assert await read(settings, tmp_path / "b") == {"a": 3, "b": 2}


async def test_an_owner_of_long_ago_has_nothing_to_say_where_a_later_one_has_written_its_values(
    fresh_kafka: Any, tmp_path: Path
) -> None:
    settings = fresh_kafka.settings()
    await provision(settings, changelogs=[changelog(settings)], wait=20)
    async with owner(settings, tmp_path / "long ago") as first:
        await first.write(changed=1, deleted=1, deleted_later=1)
    async with owner(settings, tmp_path / "later") as second:
        await second.write(changed=2, deleted=None, new=2)
    fresh_kafka.new_life()
    await provision(settings, changelogs=[changelog(settings)], wait=20)
    async with owner(settings, tmp_path / "later", NEXT) as second:
        assert dict(second.part.items()) == {"changed": Value(2), "deleted_later": Value(1), "new": Value(2)}
        await second.write(new=3, deleted_later=None)
    async with owner(settings, tmp_path / "long ago", NEXT) as first:
        assert dict(first.part.items()) == {"changed": Value(2), "new": Value(3)}
        await first.write(more=4)
    expected = {"changed": 2, "new": 3, "more": 4}
    assert await read(settings, tmp_path / "a", NEXT) == expected
    async with owner(settings, tmp_path / "long ago", NEXT) as first:  # and nothing comes back later
        assert {key: value.n for key, value in first.part.items()} == expected


async def test_values_of_an_earlier_life_fill_what_nobody_has_said_in_this_one(
    fresh_kafka: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = fresh_kafka.settings()
    await provision(settings, changelogs=[changelog(settings)], wait=20)
    async with owner(settings, tmp_path / "a") as first:
        await first.write(kept=1, changed=1, deleted=1)
    fresh_kafka.new_life()
    await provision(settings, changelogs=[changelog(settings)], wait=20)
    async with owner(settings, tmp_path / "empty", NEXT) as second:
        await second.write(changed=5, deleted=5, new=5)
        await second.write(deleted=None)
    following = Standby(settings.bootstrap, group(settings), tmp_path / "standby", [second.table])
    (tmp_path / "standby").mkdir()
    (tmp_path / "a").rename(tmp_path / "standby" / "0")
    await following.follow([0], NEXT)
    async with asyncio.timeout(20):
        while dict(following.states[0].values("values")).keys() != {"changed", "new"}:
            await asyncio.sleep(0.05)
    await following.close()
    async with owner(settings, tmp_path / "standby" / "0", NEXT) as first:
        assert {key: value.n for key, value in first.part.items()} == {"kept": 1, "changed": 5, "new": 5}
        assert not first.part.seen("kept", Position(NEXT, 0, 0)), "its marks mean nothing any more"
        assert first.part.seen("changed", Position(NEXT, 0, 5))
        await first.write(new=6)
    assert await read(settings, tmp_path / "b", NEXT) == {"kept": 1, "changed": 5, "new": 6}
    assert caplog.text.count("NEW LIFE") == 1


async def test_a_standby_reads_anew_where_an_earlier_tpstream_did_not_say_what_it_owes(
    settings: Settings, tmp_path: Path
) -> None:
    async with owner(settings, tmp_path / "a") as first:
        await first.write(k=1, l=1)
        end = first.state.meta.offsets["values"]
    (tmp_path / "standby").mkdir()
    now = time.time_ns() // 1_000_000
    left = PartitionState(tmp_path / "standby" / "0")
    left._write(WriteBatch(raw_mode=True), Meta(life=LIFE, offsets={"values": end}, owing=True, written_at=now))
    left.close()
    following = Standby(settings.bootstrap, group(settings), tmp_path / "standby", [first.table])
    await following.follow([0], LIFE)
    async with asyncio.timeout(20):
        while dict(following.states[0].values("values")).keys() != {"k", "l"}:
            await asyncio.sleep(0.05)
    await following.close()


async def test_foreign_bytes_are_left_out_and_counted(settings: Settings, tmp_path: Path) -> None:
    async with owner(settings, tmp_path / "a") as first:
        await first.write(a=1)
        stranger = Producer(settings.bootstrap, settings.partitions)
        await stranger.start()
        for key, value in ((b"a", b"{}"), (b"\xff", None), (b"x", b"\x02" + bytes(40))):
            stranger.add(changelog(settings), 0, key, value, (), 0)
        await stranger.flush()
        await stranger.stop()
        await first.write(b=2)
        await first.write(c=3)
    assert await read(settings, tmp_path / "b") == {"a": 1, "b": 2, "c": 3}


async def test_a_stranger_that_only_the_recovery_saw_is_written_over(settings: Settings, tmp_path: Path) -> None:
    async with owner(settings, tmp_path / "a") as zombie:
        async with owner(settings, tmp_path / "b") as second:
            await second.write(k=2)
        with pytest.raises(Superseded):
            await zombie.write(k=1)
    async with owner(settings, tmp_path / "b") as third:
        for key in third.state.meta.out_of_turn["values"]:  # as `Runner` does
            third.part.write_again(key)
        await third.write(j=1)
        assert third.state.meta.out_of_turn == {}
    assert [key for key, epoch in await everything(settings) if epoch == 3 and key][-2:] == ["k", "j"]
    assert await read(settings, tmp_path / "c") == {"k": 2, "j": 1}

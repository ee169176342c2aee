"""A table's changed keys that are not on disk are bounded: the lane asks for a checkpoint, and then waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from tpstream.bus.agent import Agent
from tpstream.bus.batch import Batch
from tpstream.bus.lane import Lane
from tpstream.bus.position import Life
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.bus.topics import uplink_raw
from tpstream.settings import Settings
from tpstream.testing import FakeRecord

LIFE = Life(bytes([1] * 16))
BOUND = 4


class Seen(msgspec.Struct, frozen=True):
    """That a key was seen."""

    offset: int


async def turns() -> None:
    """Let the lane's tasks go as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_batch_waits_until_changed_keys_are_on_disk(tmp_path: Path) -> None:
    table = Table("seen", Seen)

    async def see(batch: Batch) -> None:
        for record in batch:
            table.of(batch).put(f"k{record.offset}", Seen(record.offset), batch.position(record))

    services: Any = SimpleNamespace(settings=Settings.load({}))
    sink: Any = SimpleNamespace(name="topics", pending=0)
    lane = Lane([Agent("see", see, (uplink_raw,), (table,), "process")], services, sink)
    state = PartitionState(tmp_path / "0")
    part = table.partitions[0] = TablePartition(table, 0, LIFE, state, BOUND)
    lane.assign([(uplink_raw.name, 0)], LIFE)
    progress = lane.progress[uplink_raw.name, 0]

    async def offer(offset: int) -> None:
        record: Any = FakeRecord(b"", offset, 1_000, b"d", ())
        lane.offer(uplink_raw.name, 0, [record])
        await turns()

    wanted = []
    for offset in range(8):
        await offer(offset)
        wanted.append(lane.full.is_set())
    assert wanted == [False] * 3 + [True] * 5, "as many as are to be in memory: a checkpoint, please"
    assert progress.acknowledged() == 7
    assert part.held == 7, "beyond one and a half times the bound nothing is taken over"

    prepared = part.prepare()
    await lane.made_room()
    await turns()
    assert (part.waiting, part.held, progress.acknowledged()) == (0, 7, 7), "prepared is not written yet"
    part.take_back(prepared)
    assert part.held == 7

    prepared = part.prepare()
    state.write(LIFE, {"seen": prepared}, {})
    part.written(prepared)
    await lane.made_room()
    await turns()
    assert (part.held, progress.acknowledged()) == (1, 8)
    await lane.drain(1.0)
    state.close()


def test_of_many_keys_no_more_stay_in_memory_than_are_held_and_the_bound(tmp_path: Path) -> None:
    """Batches as large as the bound, of keys that none has had before."""
    state = PartitionState(tmp_path / "0")
    part = TablePartition(Table("seen", Seen), 0, LIFE, state, 100)
    for first in range(0, 3_000, 100):
        for n in range(first, first + 100):
            part.put(f"k{n}", Seen(n))
        part.accept()
        part.trim()
        assert len(part.cells) <= 310
        prepared = part.prepare()
        state.write(LIFE, {"seen": prepared}, {})
        part.written(prepared)
    assert part["k0"] == Seen(0)
    state.close()


def test_a_key_that_changes_while_it_is_written_is_held_once(tmp_path: Path) -> None:
    """Else a table whose keys all fit in memory would have the lane wait for each checkpoint."""
    state = PartitionState(tmp_path / "0")
    part = TablePartition(Table("seen", Seen), 0, LIFE, state, 100)
    keys = [f"k{n}" for n in range(90)]
    for turn in range(3):
        for key in keys:
            part.put(key, Seen(turn))
        part.accept()
        if turn == 0:
            prepared = part.prepare()
    part.write_again(keys[0])
    assert (part.waiting, part.held) == (90, 90)
    part.written(prepared)
    assert (part.waiting, part.held) == (90, 90)
    prepared = part.prepare()
    part.put(keys[0], Seen(9))
    part.accept()
    assert (part.waiting, part.held) == (1, 90)
    part.take_back(prepared)
    assert (part.waiting, part.held) == (90, 90)
    state.close()


def test_a_partition_that_is_only_read_stays_within_its_bound(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {"seen": {"k": b"?"}}, {})
    part = TablePartition(Table("seen", Seen), 0, LIFE, state, 100)
    for first in range(0, 20_000, 50):
        for n in range(first, first + 50):
            assert part.get(f"absent{n}") is None
        part.accept()
        part.trim()
        assert len(part.cells) <= 260
    state.close()

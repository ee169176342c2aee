"""Bring a partition's tables back: RocksDB, then the rest of the changelogs.

In the life in which the state was written, the changelogs are read from where RocksDB stands.
In a new life the changelogs are empty or another's: the values are kept, their
marks mean nothing any more, and all of them are written to the new changelog.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from tpstream.bus.position import NO_LIFE, Life
from tpstream.bus.reader import read_to_end
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Newer, Table, TablePartition
from tpstream.errors import TpstreamError

log = logging.getLogger(__name__)


def changelog_of(group: str, table: Table[Any]) -> str:
    """The changelog topic of a table in a consumer group, named as Faust names them."""
    return f"{group}-{table.name}-changelog"


async def recover(
    bootstrap: str,
    group: str,
    directory: Path,
    life: Life,
    tables: Sequence[Table[Any]],
    partitions: Collection[int],
) -> dict[int, PartitionState]:
    """Open the state of these partitions and load the tables; the states, by partition.

    Raises Unavailable where Kafka is away, TpstreamError where stored values are newer.
    """
    began = time.monotonic()
    states = {number: PartitionState(directory / str(number)) for number in sorted(partitions)}
    starts: dict[TopicPartition, int] = {}
    by_topic = {changelog_of(group, table): table for table in tables}
    loaded = 0
    try:
        for number, state in states.items():
            same_life = state.life == life
            if not same_life and state.life != NO_LIFE:
                log.warning("NEW LIFE of the topics: values of partition %d are kept, marks start anew", number)
            for table in tables:
                part: TablePartition[Any] = TablePartition(table, number, life)
                for key, data in state.values(table.name):
                    part.load(key, data)
                    loaded += 1
                if not same_life:
                    part.touch_all()
                table.partitions[number] = part
                offset = state.meta.offsets.get(table.name, 0) if same_life else 0
                starts[TopicPartition(changelog_of(group, table), number)] = offset
        replayed = await _replay(bootstrap, by_topic, states, life, starts)
    except BaseException:
        for state in states.values():
            state.close()
        raise
    log.info(
        "recovered %d values from disk and %d from changelogs of %d partitions in %.2f s",
        loaded, replayed, len(states), time.monotonic() - began,
    )  # fmt: skip
    return states


async def _replay(
    bootstrap: str,
    by_topic: dict[str, Table[Any]],
    states: dict[int, PartitionState],
    life: Life,
    starts: dict[TopicPartition, int],
) -> int:
    """Apply the changelogs from `starts` to their end, in memory and on disk; how many records."""
    count = 0
    if not starts:
        return 0
    async for place, records in read_to_end(bootstrap, starts):
        table = by_topic[place.topic]
        part = table.at(place.partition)
        values: dict[str, bytes | None] = {}
        for record in records:
            try:
                key = (record.key or b"").decode()
                part.load(key, record.value)
            except Newer:
                raise
            except (TpstreamError, UnicodeDecodeError) as error:
                log.error("changelog %s-%d offset %d is left out: %s", *place, record.offset, error)
                continue
            values[key] = record.value
        count += len(records)
        states[place.partition].write(life, {table.name: values}, {table.name: records[-1].offset + 1})
    return count

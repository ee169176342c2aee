"""Bring partitions' state on disk up to the end of their changelogs.

The state has what the last checkpoint of this worker wrote, or what a standby has followed since;
the changelogs have the rest. Only the head of each value is read: values are decoded when they
are asked for. In a new life the changelogs are empty or another's: what they say counts, and
where they say nothing the values stay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition

from tpstream.bus.changelog import changelog_of, replay
from tpstream.bus.position import Life
from tpstream.bus.progress import Place
from tpstream.bus.reader import read_to_end
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Table

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 2.0
"""Between two lines that say how far a long recovery is."""


async def recover(
    bootstrap: str, group: str, life: Life, tables: Sequence[Table[Any]], states: Mapping[int, PartitionState]
) -> dict[Place, int]:
    """Replay the changelogs into these states; the offsets behind their ends.

    Raises Unavailable where Kafka or the disk is away, Newer where stored values are newer.
    """
    for state in states.values():
        state.enter(life)
    starts = starting_points(group, life, tables, states)
    ends = {(place.topic, place.partition): offset for place, offset in starts.items()}
    if not starts:
        return ends
    names = {changelog_of(group, table): table.name for table in tables}
    began = said = time.monotonic()
    count = 0
    async for place, records in read_to_end(bootstrap, starts, bare=True):
        replay(states[place.partition], names[place.topic], records, life)
        ends[place.topic, place.partition] = records[-1].offset + 1
        count += len(records)
        if time.monotonic() - said > PROGRESS_SECONDS:
            said = time.monotonic()
            log.info("recovering: %d changelog records so far, %.0f a second", count, count / (said - began))
    for state in states.values():
        state.adopt()
    seconds = time.monotonic() - began
    log.info("recovered %d partitions: %d changelog records in %.2f s", len(states), count, seconds)
    return ends


def starting_points(
    group: str, life: Life, tables: Sequence[Table[Any]], states: Mapping[int, PartitionState]
) -> dict[TopicPartition, int]:
    """Where each changelog has to be read from; of another life's state: from the beginning."""
    return {
        TopicPartition(changelog_of(group, table), number): (
            state.meta.offsets.get(table.name, 0) if state.life == life else 0
        )
        for number, state in states.items()
        for table in tables
    }

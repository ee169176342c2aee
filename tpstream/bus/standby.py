"""A standby: keeps partitions' state on disk up to date while another worker owns them.

When their owner dies, this worker has next to nothing left to read and serves at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tpstream.bus.attempt import one_line
from tpstream.bus.changelog import changelog_of, replay
from tpstream.bus.fetched import lean
from tpstream.bus.position import Life
from tpstream.bus.recovery import starting_points
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Table

log = logging.getLogger(__name__)

AGAIN_SECONDS = 2.0
"""After Kafka or the disk was away."""


class Standby:
    """Follows the changelogs of some partitions of one group into the state folder."""

    def __init__(self, bootstrap: str, group: str, directory: Path, tables: Sequence[Table[Any]]) -> None:
        self.states: dict[int, PartitionState] = {}
        """Of the partitions that are followed."""
        self._bootstrap = bootstrap
        self._group = group
        self._directory = directory
        self._tables = tuple(tables)
        self._task: asyncio.Task[None] | None = None

    async def follow(self, numbers: Collection[int], life: Life) -> None:
        """Follow exactly these partitions from now on."""
        await self._stop()
        for number in [n for n in self.states if n not in numbers]:
            self.states.pop(number).close()
        for number in numbers:
            if number not in self.states:
                self.states[number] = PartitionState.open(self._directory / str(number), life)
        if self.states and self._tables:
            self._task = asyncio.create_task(self._follow(life), name="standby")

    async def give(self, numbers: Collection[int]) -> dict[int, PartitionState]:
        """Stop following these partitions; their states, of those that were followed. `follow` goes on."""
        await self._stop()
        return {number: self.states.pop(number) for number in numbers if number in self.states}

    async def close(self) -> None:
        """Follow nothing and close the states."""
        await self.follow((), Life(b""))

    async def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, life: Life) -> None:
        said = ""
        while True:
            try:
                await self._read(life)
            except Exception as error:  # whatever it is: without a standby nothing is wrong until an owner dies
                if one_line(error) != said:
                    said = one_line(error)
                    log.warning("standby of partitions %s waits: %s", sorted(self.states), said)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _read(self, life: Life) -> None:
        names = {changelog_of(self._group, table): table.name for table in self._tables}
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await consumer.start()
            lean(consumer, names)
            for state in self.states.values():
                state.enter(life)
            starts = starting_points(self._group, life, self._tables, self.states)
            consumer.assign(list(starts))
            for place, offset in starts.items():
                consumer.seek(place, offset)
            log.info("standby of partitions %s", sorted(self.states))
            while True:
                found = await consumer.getmany(timeout_ms=1_000, max_records=20_000)
                for place, records in found.items():
                    replay(self.states[place.partition], names[place.topic], records, life)
        finally:
            with contextlib.suppress(KafkaError):
                await consumer.stop()

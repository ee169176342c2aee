"""The checkpoint: what makes a batch's effects durable, in an order one can recite.

All sinks flushed → changelog written and each record confirmed → offsets committed → RocksDB written.

The cut is taken without an await, between two steps of the event loop: what agents have
handed over until then belongs to it. While it is made durable they go on working.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tpstream.bus.lane import Lane
from tpstream.bus.producer import Producer
from tpstream.bus.progress import Place
from tpstream.bus.recovery import changelog_of
from tpstream.bus.sink import Sink
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Prepared, Table
from tpstream.errors import Rejected, Unavailable
from tpstream.observability import metrics

log = logging.getLogger(__name__)

Commit = Callable[[Mapping[Place, int]], Awaitable[None]]
"""Commits offsets; raises Unavailable (try again) or Superseded (the partitions are another's)."""

OnRejected = Callable[[Sink, Rejected], None]
"""Told of rows that a sink will never take."""


class Superseded(Exception):
    """The group has moved on: what this worker holds is not its own any more."""


class Checkpoint:
    """Drives the checkpoints of one worker. Only one runs at a time."""

    def __init__(
        self, lane: Lane, producer: Producer, sinks: Sequence[Sink], group: str, commit: Commit, on_rejected: OnRejected
    ) -> None:
        self.lane = lane
        self.producer = producer
        self.sinks = sinks
        self.group = group
        self.commit = commit
        self.on_rejected = on_rejected
        self.states: dict[int, PartitionState] = {}
        """The open state of each assigned partition; set by whoever recovers them."""
        self.tables: tuple[Table[Any], ...] = tuple({t.name: t for a in lane.agents for t in a.tables}.values())
        self.failing: str = ""
        """Why the checkpoint in hand is held up; empty: it is not."""
        self.seconds: float = 0.0
        """How long the last one took."""
        self.count = 0
        self.stopping = False
        self._lock = asyncio.Lock()
        self._assignment = 0
        """Counts how often partitions were let go: a checkpoint of before must not go on after."""

    async def run(self, interval: float) -> None:
        """A checkpoint every `interval` seconds, or at once when a sink is full, until `stopping`."""
        while not self.stopping:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lane.full.wait(), interval)
            try:
                await self.take()
            except Superseded as error:
                log.warning("checkpoint dropped: %s", error)

    async def take(self) -> None:
        """Make durable what was handed over until now; waits for parts that are away, for as long as it takes.

        Raises Superseded where the partitions were let go, or lost, meanwhile. If it ends early, by that
        or by cancellation, what it had prepared is for the next one to write.
        """
        async with self._lock:
            began = time.monotonic()
            offsets = {
                place: acknowledged
                for place, progress in self.lane.progress.items()
                if (acknowledged := progress.acknowledged()) > progress.committed
            }
            parts = {(table.name, number): table.at(number) for table in self.tables for number in self.states}
            prepared = {place: written for place, part in parts.items() if (written := part.prepare()).values}
            if not offsets and not prepared and not self.lane.full.is_set():
                return
            try:
                await self._make_durable(offsets, prepared)
            except BaseException:
                # RocksDB would be marked as further than this by the next one, and these values be missing in it.
                for place, written in prepared.items():
                    parts[place].take_back(written)
                self.failing = ""
                raise
            self.seconds = time.monotonic() - began
            self.count += 1
            metrics.CHECKPOINT_SECONDS.labels(self.group.removeprefix("tpstream-")).observe(self.seconds)
            await self.lane.made_room()

    def let_go(self) -> None:
        """The partitions are not ours any more: close their state, and have a checkpoint in hand end."""
        self._assignment += 1
        for state in self.states.values():
            state.close()
        self.states = {}
        for table in self.tables:
            table.partitions.clear()

    async def _make_durable(self, offsets: Mapping[Place, int], prepared: Mapping[tuple[str, int], Prepared]) -> None:
        assignment, states = self._assignment, dict(self.states)
        await asyncio.gather(*(self._flush(sink, assignment) for sink in self.sinks))
        self._still(assignment)
        await self._write_changelogs(prepared)
        self._still(assignment)
        if offsets:
            await self._until_available(lambda: self.commit(offsets), assignment)
        self._still(assignment)
        for place, offset in offsets.items():
            if place in self.lane.progress:
                self.lane.progress[place].committed = offset
        await self._write_states(prepared, states, assignment)

    def _still(self, assignment: int) -> None:
        if self._assignment != assignment:
            raise Superseded("the partitions were let go before it was finished; what it held comes again")

    async def _flush(self, sink: Sink, assignment: int) -> None:
        while True:
            try:
                await self._until_available(sink.flush, assignment)
                return
            except Rejected as rejected:
                log.error("%s refuses %d rows for good: %s", sink.name, len(rejected.rows), rejected)
                self.on_rejected(sink, rejected)
                # The letters it became are to be durable too, before anything is committed.
                await self.producer.flush()

    async def _write_changelogs(self, prepared: Mapping[tuple[str, int], Prepared]) -> None:
        names = {table.name: changelog_of(self.group, table) for table in self.tables}
        now = int(time.time() * 1000)  # a log's own time; no fold reads it
        for (name, number), written in prepared.items():
            for key, value in written.values.items():
                self.producer.add(names[name], number, key.encode(), value, (), now)
        await self.producer.flush()

    async def _write_states(
        self, prepared: Mapping[tuple[str, int], Prepared], states: Mapping[int, PartitionState], assignment: int
    ) -> None:
        offsets = self.changelog_ends
        for number, state in states.items():
            tables = {name: written.values for (name, n), written in prepared.items() if n == number}
            ends = {
                name: offsets[changelog_of(self.group, table), number]
                for name, table in ((t.name, t) for t in self.tables)
                if name in tables and (changelog_of(self.group, table), number) in offsets
            }
            if tables:
                await self._until_available(lambda s=state, t=tables, e=ends: self._write(s, t, e), assignment)  # type: ignore[misc]

    async def _write(
        self, state: PartitionState, tables: Mapping[str, Mapping[str, bytes | None]], ends: Mapping[str, int]
    ) -> None:
        await asyncio.to_thread(state.write, self.lane.life, tables, ends)

    @property
    def changelog_ends(self) -> Mapping[Place, int]:
        """The offset behind the last confirmed record of each changelog partition."""
        return self.producer.ends

    async def _until_available(self, step: Callable[[], Awaitable[None]], assignment: int) -> None:
        delay = 0.1
        while True:
            self._still(assignment)
            try:
                await step()
            except Unavailable as error:
                if not self.failing:
                    log.warning("checkpoint waits: %s", error)
                self.failing = str(error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
            else:
                if self.failing:
                    log.warning("checkpoint goes on")
                self.failing = ""
                return

"""The checkpoint: what makes a batch's effects durable, in an order one can recite.

The group is asked whether we are still its member → all sinks flushed → changelog written, each
record confirmed, and no stranger's among them → offsets committed → RocksDB written.

The cut is taken without an await, between two steps of the event loop: what agents have
handed over until then belongs to it. While it is made durable they go on working.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tpstream.bus.attempt import one_line
from tpstream.bus.cell import Prepared
from tpstream.bus.changelog import Changelogs, Superseded
from tpstream.bus.lane import Lane
from tpstream.bus.producer import Producer
from tpstream.bus.progress import Place
from tpstream.bus.sink import Sink
from tpstream.bus.state import PartitionState
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition, Unstorable
from tpstream.errors import Rejected, Unavailable
from tpstream.observability import metrics

log = logging.getLogger(__name__)

Commit = Callable[[Mapping[Place, int]], Awaitable[None]]
"""Commits offsets; raises Unavailable (try again) or Superseded (the partitions are another's)."""

Fence = Callable[[], Awaitable[None]]
"""Asks the group whether we are still its member; raises as a Commit does."""

OnRejected = Callable[[Sink, Rejected], None]
"""Told of rows that a sink will never take."""

__all__ = ["Checkpoint", "Commit", "Fence", "OnRejected", "Superseded"]


TABLES_SHARE = 20
"""Of the time between two checkpoints one part in so many may go to writing tables."""

LONGEST_SECONDS = 10.0
"""Between two checkpoints at the most, for the tables' sake: what a crash makes a successor do again."""

AGAIN_SECONDS = 0.5
"""Until one that was held or dropped is tried again: a sink that is full would ask for it without a pause."""

GIVE_UP_SECONDS = 60.0
"""How long checkpoints of one assignment may be dropped one after the other."""


@dataclass(slots=True)
class Cut:
    """What one checkpoint makes durable."""

    assignment: int
    offsets: dict[Place, int]
    """Next offset of each partition in which something was done."""
    prepared: dict[tuple[str, int], Prepared]
    """By table and partition."""
    parts: dict[tuple[str, int], TablePartition[Any]]
    states: dict[int, PartitionState]
    stamps: dict[int, int]


class Checkpoint:
    """Drives the checkpoints of one worker. Only one runs at a time."""

    STEPS = ("fence", "flush", "changelog", "commit", "state")

    def __init__(
        self,
        lane: Lane,
        producer: Producer,
        sinks: Sequence[Sink],
        changelogs: Changelogs,
        commit: Commit,
        fence: Fence,
        on_rejected: OnRejected,
        name: str = "process",
    ) -> None:
        self.lane = lane
        self.producer = producer
        self.sinks = sinks
        self.changelogs = changelogs
        self.commit = commit
        self.fence = fence
        self.on_rejected = on_rejected
        self.name = name
        self.states: dict[int, PartitionState] = {}
        """The open state of each assigned partition; set by whoever recovers them."""
        self.tables: tuple[Table[Any], ...] = changelogs.tables
        self.failing: str = ""
        """Why the checkpoint in hand is held up; empty: it is not."""
        self.seconds: float = 0.0
        """How long the last one took."""
        self._tables_seconds = 0.0
        self.count = 0
        self.stopping = False
        self._lock = asyncio.Lock()
        self._assignment = 0
        """Counts how often partitions were let go: a checkpoint of before must not go on after."""

    async def run(self, interval: float) -> None:
        """A checkpoint every `interval` seconds, or at once when a sink is full, until `stopping`.

        Where writing tables takes long, they come as much further apart.

        Who is told for longer than it takes to be told by the group, too, that its partitions are
        another's gives up: the worker is to begin anew.
        """
        dropped = -1, 0.0
        while not self.stopping:
            # Values that are touched all the time are written once a checkpoint, however often they were touched.
            pause = max(interval, min(TABLES_SHARE * self._tables_seconds, LONGEST_SECONDS))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lane.full.wait(), pause)
            try:
                await self.take()
            except Unstorable as error:
                # Nothing is committed without it: what it was made from comes again to a worker that is mended.
                if self.failing != str(error):
                    log.error("checkpoint held: %s", error)
                self.failing = str(error)
                await asyncio.sleep(AGAIN_SECONDS)
            except Superseded as error:
                log.warning("checkpoint dropped: %s", error)
                await asyncio.sleep(AGAIN_SECONDS)
                if dropped[0] != self._assignment:
                    dropped = self._assignment, time.monotonic()
                elif time.monotonic() - dropped[1] > GIVE_UP_SECONDS:
                    self.lane.fail(f"no checkpoint could be finished for {GIVE_UP_SECONDS:.0f} s: {error}")
                    return
            except Exception as error:  # whatever it is: without checkpoints nothing goes on
                self.lane.fail(f"the checkpoint ended: {one_line(error)}")
                return

    async def take(self) -> None:
        """Make durable what was handed over until now; waits for parts that are away, for as long as it takes.

        Raises Superseded where the partitions were let go, or lost, meanwhile. If it ends early, by that
        or by cancellation, what it had prepared is for the next one to write.
        """
        async with self._lock:
            began = time.monotonic()
            cut = Cut(self._assignment, {}, {}, {}, dict(self.states), {})
            try:
                tables_seconds = await self._cut(cut)
                if not cut.offsets and not cut.prepared and not self.lane.full.is_set():
                    return
                for step in self.STEPS:
                    step_began = time.monotonic()
                    await getattr(self, f"_{step}")(cut)
                    if step in ("changelog", "state"):
                        tables_seconds += time.monotonic() - step_began
                    await self.reached(step)
            except BaseException:
                # RocksDB would be marked as further than this by the next one, and these values be missing in it.
                for place, written in cut.prepared.items():
                    cut.parts[place].take_back(written)
                self.failing = ""
                raise
            for place, written in cut.prepared.items():
                cut.parts[place].written(written)
            self.seconds = time.monotonic() - began
            self._tables_seconds = tables_seconds
            self.count += 1
            metrics.CHECKPOINT_SECONDS.labels(self.name).observe(self.seconds)
            await self.lane.made_room()

    async def reached(self, step: str) -> None:
        """Called after each step; for those who want to know what happens when a worker dies there."""

    def let_go(self) -> None:
        """The partitions are not ours any more: close their state, and have a checkpoint in hand end."""
        self._assignment += 1
        self.changelogs.release()
        for state in self.states.values():
            state.close()
        self.states = {}
        for table in self.tables:
            table.partitions.clear()

    async def _cut(self, cut: Cut) -> float:
        """What was handed over until now, of one partition after the other; the seconds that it took.

        A partition stands still while its values are encoded, as they and its offsets are to be of one
        moment. The others go on: a record that one has sent and another has taken between their moments
        is sent again after a crash, at the same position.
        """
        seconds = 0.0
        self.changelogs.next()
        for number in sorted({partition for _, partition in self.lane.progress} | cut.states.keys()):
            self._still(cut)
            began = time.monotonic()
            for place, progress in self.lane.progress.items():
                if place[1] == number and (acknowledged := progress.acknowledged()) > progress.committed:
                    cut.offsets[place] = acknowledged
            if number in cut.states:
                cut.stamps[number] = self.changelogs.stamp(number)
                for table in self.tables:
                    part = cut.parts[table.name, number] = table.at(number)
                    if (written := part.prepare(cut.stamps[number])).cells:
                        cut.prepared[table.name, number] = written
            seconds += time.monotonic() - began
            await asyncio.sleep(0)
        return seconds

    # The steps, in their order

    async def _fence(self, cut: Cut) -> None:
        """Not a word to anybody if the group has given our partitions to another while we slept."""
        if cut.offsets or cut.prepared:
            await self._until_available(self.fence, cut)

    async def _flush(self, cut: Cut) -> None:
        await asyncio.gather(*(self._flush_sink(sink, cut) for sink in self.sinks))

    async def _flush_sink(self, sink: Sink, cut: Cut) -> None:
        while True:
            try:
                await self._until_available(sink.flush, cut)
                return
            except Rejected as rejected:
                log.error("%s refuses %d rows for good: %s", sink.name, len(rejected.rows), rejected)
                self.on_rejected(sink, rejected)
                # The letters it became are to be durable too, before anything is committed.
                await self.producer.flush()

    async def _changelog(self, cut: Cut) -> None:
        if cut.prepared:
            await self._until_available(partial(self.changelogs.fits, cut.prepared), cut)
            self._still(cut)
            await self.changelogs.write(cut.prepared, partial(self._still, cut))
            await self._until_available(self.changelogs.check, cut)

    async def _commit(self, cut: Cut) -> None:
        if cut.offsets:
            await self._until_available(lambda: self.commit(cut.offsets), cut)
            self._still(cut)
        for place, offset in cut.offsets.items():
            if place in self.lane.progress:
                self.lane.progress[place].committed = offset

    async def _state(self, cut: Cut) -> None:
        for number in cut.states:
            await self._until_available(partial(self._write_state, cut, number), cut)

    async def _write_state(self, cut: Cut, number: int) -> None:
        tables = {name: written for (name, n), written in cut.prepared.items() if n == number}
        if tables:
            ends = self.changelogs.ends(list(tables), number)
            stamps = dict.fromkeys(tables, cut.stamps[number])
            await asyncio.to_thread(cut.states[number].write, self.lane.life, tables, ends, stamps)

    def _still(self, cut: Cut) -> None:
        if self._assignment != cut.assignment:
            raise Superseded("the partitions were let go before it was finished; what it held comes again")

    async def _until_available(self, step: Callable[[], Awaitable[None]], cut: Cut) -> None:
        delay = 0.1
        while True:
            self._still(cut)
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

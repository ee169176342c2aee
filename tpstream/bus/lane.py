"""The batch lane: records of lane topics go to agents as lists, one partition in order.

Faust's consumer hands over what it fetched (`offer`). Each agent has a queue for each
partition number and one task that works through it; what a handler did is taken over at
once, without an await, when it has returned (`_accept`), so at any moment the accepted
state of all agents is a consistent cut for the checkpoint. A record is acknowledged when
every agent on its topic has taken it over and the checkpoint after that is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tpstream.bus import topics
from tpstream.bus.agent import AT_ONCE, Agent, Services
from tpstream.bus.attempt import WATCHED, Attempts, Condition, one_line
from tpstream.bus.batch import Batch, Record
from tpstream.bus.position import NO_LIFE, Life
from tpstream.bus.progress import Place, Progress
from tpstream.bus.sink import Outlet
from tpstream.bus.topics import Topic
from tpstream.errors import Full
from tpstream.observability import metrics

log = logging.getLogger(__name__)

ROOM_SECONDS = 0.5
"""Between two tries to hand over what a batch did, where a sink or a table has no room."""

MOST_HELD = 1.5
"""How many keys may be changed and not yet on disk, in those that a table is to have in memory. At once as many a
checkpoint is asked for, and while it is written the rest may change."""


class Lane:
    """Queues, workers and progress of the partitions that are assigned to this process."""

    def __init__(
        self,
        agents: Sequence[Agent],
        services: Services,
        sink: Outlet,
        *,
        pause: Callable[[str, int], None] = lambda topic, partition: None,
        resume: Callable[[str, int], None] = lambda topic, partition: None,
    ) -> None:
        self.agents = agents
        self.services = services
        self.sink = sink
        """Where produced records go."""
        self.life: Life = NO_LIFE
        self.progress: dict[Place, Progress] = {}
        self.full = asyncio.Event()
        """Set when a sink or a table is full: a checkpoint is wanted now."""
        self.failure = ""
        """Why a partition stands still that nothing would move again; empty: none does."""
        self.failed = asyncio.Event()
        """Set with it: the worker is to end, so that its successor begins anew."""
        self._room = asyncio.Condition()
        self._pause, self._resume = pause, resume
        self._by_topic: dict[str, list[Agent]] = {}
        for agent in agents:
            for topic in agent.topics:
                self._by_topic.setdefault(topic.name, []).append(agent)
        self._queues: dict[tuple[str, int], asyncio.Queue[None]] = {}
        self._waiting_lists: dict[tuple[str, int], deque[tuple[Topic[Any], list[Record]]]] = {}
        self._tasks: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._paused: set[Place] = set()
        self._gaps: set[Place] = set()
        """Of users' topics: partitions of which it was said that offsets are missing."""
        self._draining = False
        self.assignment = 0
        """Counts how often partitions came or went: records asked for before are not to be taken after."""
        self._conditions = {agent.name: Condition() for agent in agents}

    @property
    def topics(self) -> frozenset[str]:
        """The topics that this lane takes."""
        return frozenset(self._by_topic)

    @property
    def joined(self) -> frozenset[str]:
        """The topics whose partition numbers are those of tables, too; others may have other numbers."""
        return frozenset(topic.name for agent in self.agents if agent.tables for topic in agent.topics)

    @property
    def stopped(self) -> dict[str, str]:
        """Agents stopped by a mass of errors, and why."""
        return {name: condition.stopped for name, condition in self._conditions.items() if condition.stopped}

    @property
    def waiting(self) -> dict[str, str]:
        """Agents that wait for a part that is away, and for which."""
        return {name: condition.waiting for name, condition in self._conditions.items() if condition.waiting}

    def buffered(self) -> dict[str, int]:
        """Records that wait for each agent."""
        waiting = dict.fromkeys((agent.name for agent in self.agents), 0)
        for (name, _), lists in self._waiting_lists.items():
            waiting[name] += sum(len(records) for _, records in lists)
        return waiting

    # Assignment

    def assign(self, places: Iterable[Place], life: Life) -> None:
        """Begin with these partitions; their tables are recovered. What was there before is gone."""
        self.life = life
        self.assignment += 1
        self._draining = False
        for topic, partition in places:
            if topic not in self._by_topic:
                continue
            progress = self.progress[topic, partition] = Progress(moved_at=time.monotonic())
            for agent in self._by_topic[topic]:
                progress.done[agent.name] = -1
                slot = (agent.name, partition)
                if slot not in self._tasks:
                    self._queues[slot] = asyncio.Queue()
                    self._waiting_lists[slot] = deque()
                    task = self._tasks[slot] = asyncio.create_task(
                        self._work(agent, partition), name=f"{agent.name}-{partition}"
                    )
                    task.add_done_callback(self._ended)

    async def drain(self, patience: float) -> None:
        """Stop taking batches and wait for the handlers in hand; what they cannot finish is undone."""
        self._draining = True
        self.assignment += 1
        for queue in self._queues.values():
            queue.put_nowait(None)
        tasks = list(self._tasks.values())
        for (name, _), task in self._tasks.items():
            if name in self.stopped or name in self.waiting:
                task.cancel()  # it waits, perhaps for ever; what a stopped one has in hand comes again
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=patience)
            for task in late:
                log.warning("%s did not finish its batch within %.1f s; it comes again", task.get_name(), patience)
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._tasks.clear()
        self._queues.clear()
        self._waiting_lists.clear()

    def release(self) -> None:
        """Forget all partitions; call after the last checkpoint."""
        self.progress.clear()
        self._paused.clear()
        for condition in self._conditions.values():
            condition.waiting = ""

    # From the consumer

    def offer(self, topic: str, partition: int, records: list[Record], committed: int | None = None) -> None:
        """Take records as they were fetched; those taken before (a seek back) are passed over.

        `committed`: where the group was as the partition was assigned; None: not known.
        """
        progress = self.progress.get((topic, partition))
        if progress is None or self._draining or not records:
            return
        if progress.fetched >= 0:
            committed = progress.fetched
        elif committed is not None and records[0].offset < committed:
            log.error(
                "%s-%d was made anew: it begins at %d, and was committed up to %d. Tables that have folded the old one "
                "pass over what is new up to there; give the new topic another name",
                *(topic, partition, records[0].offset, committed),
            )
        if committed is not None and records[0].offset > committed:
            self._missed(topic, partition, committed, records[0].offset)
        if records[0].offset < progress.fetched:
            records = [record for record in records if record.offset >= progress.fetched]
            if not records:
                return
        if progress.fetched < 0:
            for name in progress.done:
                progress.done[name] = records[0].offset
            progress.committed = records[0].offset
        progress.fetched = records[-1].offset + 1
        progress.clock = max(progress.clock, records[-1].timestamp)
        size = _size(records)
        progress.lists.append((progress.fetched, len(records), size))
        progress.buffered += len(records)
        progress.bytes += size
        declared = topics.by_name(topic) if topic in topics.names() else self._foreign(topic)
        for agent in self._by_topic[topic]:
            slot = (agent.name, partition)
            self._waiting_lists[slot].append((declared, records))
            self._queues[slot].put_nowait(None)
        settings = self.services.settings
        if progress.buffered > settings.lane_records or progress.bytes > settings.lane_bytes:
            self._paused.add((topic, partition))
            self._pause(topic, partition)

    def _missed(self, topic: str, partition: int, start: int, end: int) -> None:
        """Offsets from start to end are not there: as it should be after compaction, and else nowhere."""
        metrics.INPUT_MISSED.labels(topic).inc(end - start)
        if topic in topics.names() or (topic, partition) not in self._gaps:
            self._gaps.add((topic, partition))
            log.error(
                "%s-%d: offsets %d to %d were not read before they were deleted, or compacted; if they are missed, "
                "raise the topic's retention.ms, and publish them again",
                *(topic, partition, start, end - 1),
            )

    def _foreign(self, name: str) -> Topic[Any]:
        return next(topic for agent in self.agents for topic in agent.topics if topic.name == name)

    # Working

    async def _work(self, agent: Agent, partition: int) -> None:
        slot = (agent.name, partition)
        queue, waiting = self._queues[slot], self._waiting_lists[slot]
        attempts = Attempts(
            agent,
            partition,
            self._conditions[agent.name],
            seconds=self.services.settings.handler_seconds,
            batch=self._batch,
            accept=self.accept,
        )
        while not self._draining:
            await queue.get()
            if self._draining or not waiting:
                continue
            topic, records = self._next(waiting)
            start = 0
            while start < len(records):
                if self._draining:
                    return
                some = records[start : start + attempts.at_once]
                await attempts.run(topic, some)
                start += len(some)

    def settled(self, agent: str, sent: int, refused: int, why: str) -> None:
        """Of so many records that an agent sent topics took all but these; a mass of them stops it, as of errors."""
        condition = self._conditions.get(agent)
        if condition is not None:
            condition.refused.add(sent, refused)
            if condition.refused.is_mass:
                condition.stop(agent, f"half of the last {WATCHED} records that it sent are refused, last: {why}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A task that ends otherwise than by `drain` would leave its partition standing still in silence."""
        if task.cancelled():
            error: BaseException | None = None if self._draining else asyncio.CancelledError()
        else:
            error = task.exception()
        if error is not None:
            self.fail(f"{task.get_name()} ended: {one_line(error)}")

    def fail(self, reason: str) -> None:
        """Have the worker end: something happened that would leave a partition standing still."""
        log.error("%s", reason)
        self.failure = self.failure or reason
        self.failed.set()

    @staticmethod
    def _next(waiting: deque[tuple[Topic[Any], list[Record]]]) -> tuple[Topic[Any], list[Record]]:
        """The head of the queue, with what follows of the same topic, as one list."""
        topic, records = waiting.popleft()
        while waiting and waiting[0][0] is topic and len(records) + len(waiting[0][1]) <= AT_ONCE:
            records = records + waiting.popleft()[1]
        return topic, records

    def _batch(self, agent: Agent, topic: Topic[Any], partition: int, records: Sequence[Any]) -> Batch:
        """A fresh batch over these records, with nothing done yet."""
        return Batch(topic, partition, records, self.life, agent.name, self.services, tables=agent.tables)

    async def accept(self, agent: Agent, batch: Batch) -> None:
        """Take over all that a handler did, as one; waits for room in the sinks and tables first."""
        while True:
            try:
                self._accept(agent, batch)
                return
            except Full:
                self.full.set()
                # With a time-out: room may have been made between these two lines.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ROOM_SECONDS), self._room:
                        await self._room.wait()

    def _accept(self, agent: Agent, batch: Batch) -> None:
        """Raises Full where something has no room before the next checkpoint; then what has been taken stays so."""
        parts = [table.at(batch.partition) for table in agent.tables]
        for part in parts:
            if part.held > part.bound * MOST_HELD:
                raise Full(f"table {part.table.name}, partition {part.partition}: {part.held} keys are not on disk yet")
        if batch.outgoing:
            self.sink.add(batch.outgoing, (), agent.name)
            batch.outgoing = []
        while batch.rows:
            sink, rows, positions = batch.rows[0]
            sink.add(rows, positions)
            batch.rows.pop(0)
            if sink.pending >= self.services.settings.store_rows:
                self.full.set()
        for part in parts:
            part.accept()
        self._done(agent, batch)
        for part in parts:
            part.trim()
            if part.waiting >= part.bound:
                self.full.set()

    def _done(self, agent: Agent, batch: Batch) -> None:
        progress = self.progress.get((batch.topic.name, batch.partition))
        if progress is None:
            return
        progress.done[agent.name] = batch.records[-1].offset + 1
        progress.moved_at = time.monotonic()
        acknowledged = progress.acknowledged()
        while progress.lists and progress.lists[0][0] <= acknowledged:
            _, count, size = progress.lists.popleft()
            progress.buffered -= count
            progress.bytes -= size
        place = (batch.topic.name, batch.partition)
        settings = self.services.settings
        if (
            place in self._paused
            and progress.buffered < settings.lane_records / 2
            and progress.bytes < settings.lane_bytes / 2
        ):
            self._paused.discard(place)
            self._resume(*place)

    async def made_room(self) -> None:
        """A checkpoint is done: whoever waited for room tries again."""
        self.full.clear()
        async with self._room:
            self._room.notify_all()


def _size(records: Sequence[Record]) -> int:
    """Bytes that fetched records take in memory, about (measured); those of one list have headers alike."""
    headers = sum(200 + len(value or b"") for _, value in records[0].headers)
    values = sum([len(value) for record in records if (value := record.value) is not None])
    return values + len(records) * (220 + headers)

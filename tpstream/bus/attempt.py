"""One batch and one handler, until it is done: attempts, waiting, bisection."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tpstream.bus.agent import Agent
from tpstream.bus.batch import Batch, Record, foreign
from tpstream.bus.envelope import header
from tpstream.bus.position import Position
from tpstream.bus.refused import fitting
from tpstream.bus.topics import Topic
from tpstream.errors import TpstreamError, Unavailable
from tpstream.messages import DeadLetter
from tpstream.observability import metrics

log = logging.getLogger(__name__)

ATTEMPTS = 3
WATCHED = 1_000
"""Of this many records, more than half poison stops the agent instead of emptying the topic."""


@dataclass(slots=True)
class Condition:
    """How an agent fares, over all its partitions."""

    waiting: str = ""
    """For which part that is away it waits; empty: for none."""
    stopped: str = ""
    """Why it was stopped by a mass of errors; empty: it was not."""
    recent: deque[tuple[int, bool]] = field(default_factory=deque)
    """Of the last records since a poison one: how many, and whether they were poison."""
    done: int = 0
    """Records since it was last heard what topics had refused."""

    def remember(self, count: int, *, poison: bool) -> None:
        """So many records more were done, or were poison."""
        if not poison and not self.recent:
            return  # nothing to weigh against
        self.recent.append((count, poison))
        total = sum(n for n, _ in self.recent)
        while total - self.recent[0][0] >= WATCHED:
            total -= self.recent.popleft()[0]
        if not any(bad for _, bad in self.recent):
            self.recent.clear()

    def refused(self, count: int) -> None:
        """Topics will never take so many of the records that were sent for those done."""
        total, self.done = max(self.done, count), 0
        share = min(1.0, WATCHED / total)
        self.remember(round(count * share), poison=True)
        self.remember(round((total - count) * share), poison=False)

    def is_mass(self) -> bool:
        """Whether so many of the last records were poison that all of a topic's may be."""
        return self.poisoned() >= WATCHED // 2

    def stop(self, agent: str, reason: str) -> None:
        """Have the agent take no batch any more."""
        if not self.stopped:
            self.stopped = reason
            log.error("%s STOPPED, its partitions are held: %s", agent, reason)

    def poisoned(self) -> int:
        """How many of the last records were poison."""
        return sum(n for n, bad in self.recent if bad)


class Attempts:
    """One agent's batches of one partition number, each until it is done.

    `batch` makes a fresh batch over records; `accept` takes over all that a handler did, as one.
    """

    def __init__(
        self,
        agent: Agent,
        partition: int,
        condition: Condition,
        *,
        seconds: float,
        batch: Callable[[Agent, Topic[Any], int, Sequence[Record]], Batch],
        accept: Callable[[Agent, Batch], Awaitable[None]],
    ) -> None:
        self.agent = agent
        self.partition = partition
        self.condition = condition
        self._seconds = seconds
        self._batch = batch
        self._accept = accept

    async def run(self, topic: Topic[Any], records: Sequence[Record]) -> None:
        """Hand records to the agent until they are done or dead letters; only cancellation ends it early."""
        if self.condition.stopped:
            await self._hold()
        failure: BaseException | None = None
        for attempt in range(ATTEMPTS):
            if attempt:
                await asyncio.sleep(0.05 * 4**attempt)
            failure = await self._try(topic, records)
            if failure is None:
                return
        if len(records) > 1:
            where = f"{topic.name}-{self.partition}"
            log.warning(
                "%s failed %d times on %d records of %s (%s); looking for the one",
                *(self.agent.name, ATTEMPTS, len(records), where, one_line(failure)),
            )
        await self._bisect(topic, records, failure)

    async def _bisect(self, topic: Topic[Any], records: Sequence[Record], failure: BaseException | None) -> None:
        if len(records) == 1:
            if failure is not None:
                await self._bury(topic, records[0], failure)
            return
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            failed = await self._try(topic, half)
            if failed is not None:
                await self._bisect(topic, half, failed)

    async def _try(self, topic: Topic[Any], records: Sequence[Record]) -> BaseException | None:
        """One attempt; waits as long as a part is away. What failed leaves no trace."""
        agent, condition = self.agent, self.condition
        delay = 0.1
        while True:
            batch = self._batch(agent, topic, self.partition, records)
            handle: Callable[[Batch], Awaitable[object]] = agent.handler
            began = time.perf_counter()
            try:
                async with asyncio.timeout(self._seconds):
                    returned = await handle(batch)
                if returned is not None:
                    raise TpstreamError(f"agent {agent.name} returned {type(returned).__name__}, not None")
                condition.waiting = ""
                await self._accept(agent, batch)
            except Unavailable as error:
                self._undo()
                if not condition.waiting:
                    log.warning("%s waits: %s", agent.name, error)
                condition.waiting = str(error)
                metrics.HANDLER_ERRORS.labels(agent.name, "unavailable").inc()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)
            except asyncio.CancelledError as error:
                self._undo()
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # Nobody cancelled us: something that the handler awaited was, and the handler let it through.
                metrics.HANDLER_ERRORS.labels(agent.name, "error").inc()
                return error
            except Exception as error:
                self._undo()
                metrics.HANDLER_ERRORS.labels(agent.name, "error").inc()
                return error
            else:
                condition.done += len(records)
                condition.remember(len(records), poison=False)
                metrics.BATCHES.labels(agent.name).inc()
                metrics.MESSAGES.labels(agent.name).inc(len(records))
                metrics.HANDLER_SECONDS.labels(agent.name).observe(time.perf_counter() - began)
                return None

    async def _bury(self, topic: Topic[Any], record: Record, failure: BaseException) -> None:
        """Send a poison record to the dead letters, unless they become a mass: then the agent stops."""
        agent, condition = self.agent, self.condition
        if condition.is_mass():
            condition.stop(
                agent.name, f"more than half of its last {WATCHED} records failed, last: {one_line(failure)}"
            )
            await self._hold()
        condition.remember(1, poison=True)
        metrics.DEAD_LETTERS.labels(agent.name, "agent").inc()
        log.error("%s: record %d of %s-%d goes to the dead letters: %s",
                  agent.name, record.offset, topic.name, self.partition, one_line(failure))  # fmt: skip
        batch = self._batch(agent, topic, self.partition, [record])
        batch.dead_letter(*_letter(batch, agent, record, failure))
        await self._accept(agent, batch)

    @staticmethod
    async def _hold() -> None:
        """Until the worker is restarted."""
        await asyncio.Event().wait()

    def _undo(self) -> None:
        """Put the agent's tables back to where they were before the batch in hand."""
        for table in self.agent.tables:
            table.at(self.partition).undo()


def _letter(batch: Batch, agent: Agent, record: Record, failure: BaseException) -> tuple[DeadLetter, Position]:
    try:
        position = batch.position(record)
    except TpstreamError:
        position = Position(batch.life, foreign(batch.topic.name, batch.partition), record.offset)
    payload, headers, cut = fitting(record.value or b"", tuple((name, value or b"") for name, value in record.headers))
    letter = DeadLetter(
        id=f"{agent.name}-{batch.topic.name}-{batch.partition}-{record.offset}-{position.identity()}",
        ts=record.timestamp,
        device=(record.key or b"").decode(errors="replace"),
        stage=agent.name,
        reason="agent",
        topic=(header(record.headers, "topic") or batch.topic.name.encode()).decode(errors="replace"),
        payload=payload,
        detail=one_line(failure) + cut,
        headers=headers,
        attempts=ATTEMPTS,
        source_life=batch.life.hex(),
        source_partition=batch.partition,
        source_offset=record.offset,
    )
    return letter, position


def one_line(error: BaseException | None) -> str:
    """An exception as one line for a person: what, and where in whose code."""
    if error is None:
        return ""
    if isinstance(error, TimeoutError):
        return "the handler hung beyond TPSTREAM_HANDLER_SECONDS"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rsplit('/', 2)[-1]}:{frames[-1].lineno}" if frames else ""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}{where}"

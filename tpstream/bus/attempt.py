"""One batch and one handler, until it is done: attempts, waiting, bisection."""

from __future__ import annotations

import asyncio
import logging
import os
import sysconfig
import time
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tpstream.bus.agent import Agent
from tpstream.bus.batch import MOST_SENT, Batch, Record, foreign
from tpstream.bus.envelope import header
from tpstream.bus.position import Position
from tpstream.bus.refused import fitting
from tpstream.bus.topics import Topic
from tpstream.errors import TpstreamError, Unavailable
from tpstream.messages import DeadLetter
from tpstream.observability import metrics

log = logging.getLogger(__name__)

ATTEMPTS = 3
_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_NOT_THEIRS = ("<", *(f"{path}{os.sep}" for path in (*_LIBRARIES, Path(__file__).parents[1])))
"""How the files of libraries, of this package, and of what is in no file begin."""
WATCHED = 1_000
"""Of this many records half poison, or refused, stop the agent instead of emptying the topic."""


class Overfull(Exception):
    """A batch has sent so much that it is to be handed over in halves."""


class Recent:
    """The last WATCHED of something, of which some were bad. Nothing is counted while none was."""

    def __init__(self) -> None:
        self._counts: deque[tuple[int, int]] = deque()
        """How many, and how many of these were bad; the oldest first."""

    def add(self, count: int, bad: int = 0) -> None:
        """So many more."""
        if not bad and not self._counts:
            return
        if count > WATCHED:
            count, bad = WATCHED, round(bad * WATCHED / count)
        self._counts.append((count, bad))
        total = sum(n for n, _ in self._counts)
        while total - self._counts[0][0] >= WATCHED:
            total -= self._counts.popleft()[0]
        if not any(n for _, n in self._counts):
            self._counts.clear()

    @property
    def is_mass(self) -> bool:
        """Whether so many of the last were bad that all may be."""
        return 2 * sum(n for _, n in self._counts) >= WATCHED


@dataclass(slots=True)
class Condition:
    """How an agent fares, over all its partitions."""

    waiting: str = ""
    """For which part that is away it waits; empty: for none."""
    stopped: str = ""
    """Why it was stopped by a mass of errors; empty: it was not."""
    failed: Recent = field(default_factory=Recent)
    """Records, and which of them were poison."""
    refused: Recent = field(default_factory=Recent)
    """Records that it sent, and which of them their topics will never take."""

    def stop(self, agent: str, reason: str) -> None:
        """Have the agent take no batch any more."""
        if not self.stopped:
            self.stopped = reason
            log.error("%s STOPPED, its partitions are held: %s", agent, reason)


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
        self.at_once = agent.at_once
        """Records to be handed over at once: fewer where these sent too much."""
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
            if isinstance(failure, Overfull):
                await self._halve(topic, records)
                return
        if len(records) > 1:
            where = f"{topic.name}-{self.partition}"
            log.warning(
                "%s failed %d times on %d records of %s (%s); looking for the one",
                *(self.agent.name, ATTEMPTS, len(records), where, one_line(failure)),
            )
        await self._bisect(topic, records, failure)

    async def _halve(self, topic: Topic[Any], records: Sequence[Record]) -> None:
        """They did nothing wrong: as if they had been fetched in two lists."""
        middle = self.at_once = len(records) // 2
        await self.run(topic, records[:middle])
        await self.run(topic, records[middle:])

    async def _bisect(self, topic: Topic[Any], records: Sequence[Record], failure: BaseException | None) -> None:
        if len(records) == 1:
            if failure is not None:
                await self._bury(topic, records[0], failure)
            return
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            failed = await self._try(topic, half)
            if isinstance(failed, Overfull):
                await self._halve(topic, half)
            elif failed is not None:
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
                if batch.overfull:
                    self._undo()
                    return Overfull()
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
                condition.failed.add(len(records))
                if self.at_once < agent.at_once and batch.weight * 4 < MOST_SENT:
                    self.at_once = min(2 * self.at_once, agent.at_once)
                metrics.BATCHES.labels(agent.name).inc()
                metrics.MESSAGES.labels(agent.name).inc(len(records))
                metrics.HANDLER_SECONDS.labels(agent.name).observe(time.perf_counter() - began)
                return None

    async def _bury(self, topic: Topic[Any], record: Record, failure: BaseException) -> None:
        """Send a poison record to the dead letters, unless they become a mass: then the agent stops."""
        agent, condition = self.agent, self.condition
        if condition.failed.is_mass:
            condition.stop(agent.name, f"half of its last {WATCHED} records failed, last: {one_line(failure)}")
            await self._hold()
        condition.failed.add(1, bad=1)
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
    """An exception as one line for a person: what, and where in their own code, if it is in that."""
    if error is None:
        return ""
    if isinstance(error, TimeoutError) and not error.args:
        return "the handler hung beyond TPSTREAM_HANDLER_SECONDS"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THEIRS)] or frames
    where = f" at {own[-1].filename.rsplit('/', 2)[-1]}:{own[-1].lineno}" if own else ""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}{where}"

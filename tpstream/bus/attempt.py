"""One batch and one handler, until it is done: attempts, waiting, bisection."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tpstream.bus.batch import FOREIGN, Batch, Record
from tpstream.bus.envelope import header
from tpstream.bus.position import Position
from tpstream.bus.topics import Topic
from tpstream.errors import TpstreamError, Unavailable
from tpstream.messages import DeadLetter
from tpstream.observability import metrics

if TYPE_CHECKING:
    from tpstream.bus.agent import Agent
    from tpstream.bus.lane import Lane

log = logging.getLogger(__name__)

ATTEMPTS = 3
WATCHED = 1_000
"""Of this many records, more than half poison stops the agent instead of emptying the topic."""


class Poison(NamedTuple):
    """A record that no attempt could handle, as a dead letter."""

    letter: DeadLetter
    position: Position


async def run_batch(lane: Lane, agent: Agent, topic: Topic[Any], partition: int, records: Sequence[Record]) -> None:
    """Hand records to the agent until they are done or dead letters; only cancellation ends it early."""
    failure: BaseException | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(0.05 * 4**attempt)
        failure = await _try(lane, agent, topic, partition, records)
        if failure is None:
            return
    if len(records) > 1:
        log.warning("%s failed %d times on %d records of %s-%d (%s); looking for the one",
                    agent.name, ATTEMPTS, len(records), topic.name, partition, one_line(failure))  # fmt: skip
    await _bisect(lane, agent, topic, partition, records, failure)


async def _bisect(
    lane: Lane,
    agent: Agent,
    topic: Topic[Any],
    partition: int,
    records: Sequence[Record],
    failure: BaseException | None,
) -> None:
    if len(records) == 1:
        if failure is None:
            return
        await _bury(lane, agent, topic, partition, records[0], failure)
        return
    middle = len(records) // 2
    for half in (records[:middle], records[middle:]):
        failed = await _try(lane, agent, topic, partition, half)
        if failed is not None:
            await _bisect(lane, agent, topic, partition, half, failed)


async def _try(
    lane: Lane, agent: Agent, topic: Topic[Any], partition: int, records: Sequence[Record]
) -> BaseException | None:
    """One attempt; waits as long as a part is away. What failed leaves no trace."""
    delay = 0.1
    while True:
        batch = lane.batch(agent, topic, partition, records)
        began = time.perf_counter()
        try:
            async with asyncio.timeout(lane.services.settings.handler_seconds):
                await agent.handler(batch)
            lane.waiting.pop(agent.name, None)
            await lane.accept(agent, batch)
        except Unavailable as error:
            lane.undo(agent, partition)
            if agent.name not in lane.waiting:
                log.warning("%s waits: %s", agent.name, error)
            lane.waiting[agent.name] = str(error)
            metrics.HANDLER_ERRORS.labels(agent.name, "unavailable").inc()
            await asyncio.sleep(delay)
            delay = min(delay * 2, 5.0)
        except asyncio.CancelledError as error:
            lane.undo(agent, partition)
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled us: something that the handler awaited was, and the handler let it through.
            metrics.HANDLER_ERRORS.labels(agent.name, "error").inc()
            return error
        except Exception as error:
            lane.undo(agent, partition)
            metrics.HANDLER_ERRORS.labels(agent.name, "error").inc()
            return error
        else:
            _remember(lane, agent, len(records), poison=False)
            metrics.BATCHES.labels(agent.name).inc()
            metrics.MESSAGES.labels(agent.name).inc(len(records))
            metrics.HANDLER_SECONDS.labels(agent.name).observe(time.perf_counter() - began)
            return None


async def _bury(
    lane: Lane, agent: Agent, topic: Topic[Any], partition: int, record: Record, failure: BaseException
) -> None:
    """Send a poison record to the dead letters, unless they become a mass: then the agent stops."""
    if _poisoned(lane, agent) >= WATCHED // 2:
        lane.stopped[agent.name] = f"more than half of its last {WATCHED} records failed, last: {one_line(failure)}"
        log.error("%s STOPPED, its partitions are held: %s", agent.name, lane.stopped[agent.name])
        await asyncio.Event().wait()  # until the worker is restarted
    _remember(lane, agent, 1, poison=True)
    metrics.DEAD_LETTERS.labels(agent.name, "agent").inc()
    log.error("%s: record %d of %s-%d goes to the dead letters: %s",
              agent.name, record.offset, topic.name, partition, one_line(failure))  # fmt: skip
    batch = lane.batch(agent, topic, partition, [record])
    lane.poison(agent, batch, _letter(batch, agent, record, failure))
    await lane.accept(agent, batch)


def _letter(batch: Batch, agent: Agent, record: Record, failure: BaseException) -> Poison:
    try:
        position = batch.position(record)
    except TpstreamError:
        position = Position(batch.life, FOREIGN + batch.partition, record.offset)
    letter = DeadLetter(
        id=f"{agent.name}-{batch.topic.name}-{batch.partition}-{record.offset}-{position.identity()}",
        ts=record.timestamp,
        device=(record.key or b"").decode(errors="replace"),
        stage=agent.name,
        reason="agent",
        topic=(header(record.headers, "topic") or batch.topic.name.encode()).decode(errors="replace"),
        payload=record.value or b"",
        detail=one_line(failure),
        headers=tuple((name, value or b"") for name, value in record.headers),
        attempts=ATTEMPTS,
        source_life=batch.life.hex(),
        source_partition=batch.partition,
        source_offset=record.offset,
    )
    return Poison(letter, position)


def _remember(lane: Lane, agent: Agent, count: int, *, poison: bool) -> None:
    recent = lane.recent[agent.name]
    if not poison and not any(bad for _, bad in recent):
        return  # nothing to weigh against
    recent.append((count, poison))
    total = sum(n for n, _ in recent)
    while total - recent[0][0] >= WATCHED:
        total -= recent.popleft()[0]


def _poisoned(lane: Lane, agent: Agent) -> int:
    return sum(n for n, bad in lane.recent[agent.name] if bad)


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

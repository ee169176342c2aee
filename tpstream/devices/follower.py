"""Follow small topics from their beginning, through outages of Kafka and into new lives.

The end of a topic is the high watermark of a fetch response: the embedded broker answers
ListOffsets wrongly when its last batch holds more than one record (measured). A new life
shows in the life topic, which is read again every second from its beginning:
an offset alone cannot tell a topic that was made anew from one that grew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tpstream.bus import topics
from tpstream.bus.life import newest

log = logging.getLogger(__name__)

LIFE_SECONDS = 1.0
"""Seconds between two looks at the life; a new one is noticed after that and a fetch."""

AWAY_SECONDS = 5.0
"""Without an answer for so long Kafka counts as away."""

FETCH_WAIT_MS = 250
"""How long the broker holds a fetch of nothing, ms; what comes meanwhile is answered at once."""

Take = Callable[[Sequence[Any], bool], None]
"""Called with records in order per topic, and whether with them everything present was read."""


class Follower:
    """Hands every record of partition 0 of the topics to `take`; all of them again in a new life."""

    def __init__(self, bootstrap: str, names: Sequence[str], take: Take) -> None:
        self._bootstrap = bootstrap
        self._places = [aiokafka.TopicPartition(name, 0) for name in names]
        self._life_place = aiokafka.TopicPartition(topics.life.name, 0)
        self._take = take
        self._life = ""
        self._answered = 0.0
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def available(self) -> bool:
        """Whether Kafka has answered within the last seconds."""
        return time.monotonic() - self._answered < AWAY_SECONDS

    async def start(self) -> None:
        """Return when everything that the topics hold was taken; waits for Kafka for ever."""
        self._task = asyncio.create_task(self._run())
        ready = asyncio.create_task(self._ready.wait())
        try:
            # If the task ends first, it has failed: say why instead of waiting for ever.
            await asyncio.wait((self._task, ready), return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            ready.cancel()

    async def stop(self) -> None:
        """Stop following. May be called twice."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        delay = 0.1
        said = False
        while True:
            consumer = aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=FETCH_WAIT_MS,
                max_partition_fetch_bytes=8_000_000,
                metadata_max_age_ms=10_000,
            )
            try:
                await consumer.start()
                await self._wait_for_topics(consumer)
                said, delay = False, 0.1
                await self._follow(consumer)
            except (KafkaError, TimeoutError, OSError) as error:
                if not said:
                    log.warning("configuration: Kafka at %s is not reachable (%s); waiting", self._bootstrap, error)
                said = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            finally:
                await consumer.stop()

    async def _wait_for_topics(self, consumer: Any) -> None:
        """Asking for an absent topic by name would make it on some brokers; provisioning makes them."""
        wanted = {place.topic for place in (*self._places, self._life_place)}
        said = False
        while missing := wanted - await consumer.topics():
            if not said:
                log.info("configuration: waiting for topic %s to be made", min(missing))
                said = True
            await asyncio.sleep(0.1)

    async def _follow(self, consumer: Any) -> None:
        consumer.assign([*self._places, self._life_place])
        for place in (*self._places, self._life_place):
            consumer.seek(place, 0)
        looked = time.monotonic()
        complete = False
        while True:
            try:
                fetched = await consumer.getmany(timeout_ms=FETCH_WAIT_MS, max_records=5_000)
            except OffsetOutOfRangeError:
                fetched = {}  # aiokafka goes to the earliest by itself
            if time.monotonic() - looked > LIFE_SECONDS:
                looked = time.monotonic()
                consumer.seek(self._life_place, 0)
            if self._is_new_life(fetched.pop(self._life_place, ())):
                log.warning("configuration: a new life of the topics; read again, what is known is kept")
                complete = False
                for place in self._places:
                    consumer.seek(place, 0)
                continue
            records = [record for some in fetched.values() for record in some]
            now_complete = await self._is_complete(consumer)
            if records or now_complete != complete:
                complete = now_complete
                self._deliver(records, complete)
            if complete:
                self._ready.set()

    def _is_new_life(self, records: Sequence[Any]) -> bool:
        if not records:
            return False
        self._answered = time.monotonic()
        life = newest(records)
        if life is None:
            return False
        before, self._life = self._life, life.id
        return before not in ("", life.id)

    async def _is_complete(self, consumer: Any) -> bool:
        for place in self._places:
            end = consumer.highwater(place)
            if end is None or await consumer.position(place) < end:
                return False
        return bool(self._life)

    def _deliver(self, records: Sequence[Any], complete: bool) -> None:
        try:
            self._take(records, complete)
        except Exception:
            log.exception("configuration: a change could not be taken")

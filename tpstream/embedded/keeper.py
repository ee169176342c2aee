"""Follows the configuration topics into `Kept`, and puts it back into a new life."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

import aiokafka
from aiokafka.errors import KafkaError

from tpstream.embedded.kept import KEPT, Kept
from tpstream.errors import Unavailable

log = logging.getLogger(__name__)

DELAY = 0.5
"""Seconds at most between a record and the file that keeps it, while writing is quick."""

LEAVE = 1.5
"""Seconds for a last look at the topics when the broker is about to go."""


class Keeper:
    """`put_back` into an empty broker, then `follow` until that broker goes: `leave`."""

    def __init__(self, kept: Kept, bootstrap: str) -> None:
        self._kept = kept
        self._bootstrap = bootstrap
        self._task: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._pause = DELAY

    async def put_back(self) -> int:
        """Produce everything that is kept; how many records. Unavailable: the broker went away."""
        if not any(self._kept.records.values()):
            return 0
        producer = aiokafka.AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", max_request_size=20_000_000)
        try:
            await producer.start()
            count = 0
            for topic in KEPT:
                sent = [
                    await producer.send(
                        topic,
                        key=record.key,
                        value=record.value,
                        partition=0,
                        timestamp_ms=record.timestamp,
                        headers=list(record.headers),
                    )
                    for record in list(self._kept.records[topic].values())
                ]
                for acknowledged in sent:
                    await acknowledged
                count += len(sent)
            return count
        except KafkaError as error:
            raise Unavailable(
                f"Kafka at {self._bootstrap} went away while configuration was put back: {error}"
            ) from None
        finally:
            await producer.stop()

    def follow(self) -> None:
        """Begin to follow the topics, which must exist: a client that asks too early makes them."""
        self._leaving.clear()
        self._task = asyncio.create_task(self._follow(), name="configuration keeper")

    async def leave(self) -> None:
        """Stop following; what was in the topics, or at least what was read, is in the files then."""
        self._leaving.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LEAVE)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self._save()

    async def _follow(self) -> None:
        while not self._leaving.is_set():
            with suppress(KafkaError, OSError):
                await self._consume()
            await self._rest(1.0)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._leaving.wait(), seconds)

    async def _consume(self) -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, fetch_max_wait_ms=200
        )
        await consumer.start()
        try:
            consumer.assign([aiokafka.TopicPartition(name, 0) for name in KEPT])
            await consumer.seek_to_beginning()
            last = False
            while not last:
                last = self._leaving.is_set()
                for place, records in (await consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        self._kept.take(
                            place.topic, record.key or b"", record.value, record.timestamp, tuple(record.headers)
                        )
                if self._kept.changed:
                    await self._save()
                    await self._rest(self._pause)
        finally:
            await consumer.stop()

    async def _save(self) -> None:
        files = self._kept.drain()
        if not files:
            return
        began = time.monotonic()
        try:
            await asyncio.to_thread(self._kept.write, files)
        except OSError as error:
            self._kept.again(files)
            log.error("configuration cannot be kept in %s (%s); trying again", self._kept.folder, error.strerror)
        # A hundred thousand devices are a file of 20 MB: writing takes a tenth of the time at most.
        self._pause = max(DELAY, 10 * (time.monotonic() - began))

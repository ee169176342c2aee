"""Reads tp.downlink.mqtt.v1: every partition, from its end, without a group.

Each bridge reads all of it and publishes what is for its own connections; what passes while a
bridge is away is sent again by agents/downlink when the device connects.

The end of a partition is the high watermark of a fetch (the embedded broker answers ListOffsets
wrongly). A new life of the topics begins at offset 0 again, and our place means nothing in it: so
the life record is read again each second, and after each fetch before what it brought is published.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Protocol

import aiokafka
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink import Downlink
from tpstream.bus import topics
from tpstream.bus.life import newest

log = logging.getLogger(__name__)

LIFE_SECONDS = 1.0
"""How often the life record is looked at."""

POLL_MS = 50
"""How long a fetch waits for records, ms: the embedded broker answers a waiting fetch up to half of it late."""

PATIENCE = 20.0
"""Seconds to find the ends before connecting anew."""

_LIFE = TopicPartition(topics.life.name, 0)


class Publisher(Protocol):
    """A way in, seen from here."""

    async def room(self) -> None:
        """Wait until `deliver` may be called."""
        ...

    def deliver(self, downlink: Downlink) -> None:
        """Publish to the device."""
        ...


class DownlinkReader:
    """Follows the downlink topic and hands what it reads to a way in."""

    def __init__(self, bootstrap: str, partitions: int, counts: Counts, publisher: Publisher) -> None:
        self.available = False
        """Whether the last fetch was answered."""
        self._bootstrap = bootstrap
        self._places = [TopicPartition(topics.downlink_mqtt.name, n) for n in range(partitions)]
        self._counts = counts
        self._publisher = publisher
        self._consumer: Any = None
        self._lives: Any = None
        self._task: asyncio.Task[None] | None = None
        self._life: str | None = None

    async def start(self) -> None:
        """Find the ends, and follow from there in the background. Waits for Kafka."""
        delay = 0.1
        while True:
            try:
                await self._connect()
                await self._seek_to_ends()
                break
            except (KafkaError, TimeoutError, OSError) as error:
                log.warning("the downlink topic cannot be read (%s); trying again", error)
                await self._disconnect()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
        self.available = True
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._disconnect()

    async def _connect(self) -> None:
        # A consumer of its own for the life: the long poll of the other must not delay it.
        self._consumer, self._lives = (
            aiokafka.AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=POLL_MS,
                max_partition_fetch_bytes=2_000_000,
                request_timeout_ms=10_000,
                retry_backoff_ms=100,
            )
            for _ in range(2)
        )
        await self._consumer.start()
        await self._lives.start()
        self._consumer.assign(self._places)
        self._lives.assign([_LIFE])

    async def _disconnect(self) -> None:
        for consumer in (self._consumer, self._lives):
            if consumer is not None:
                with suppress(KafkaError, OSError):
                    await consumer.stop()
        self._consumer = self._lives = None

    async def _seek_to_ends(self) -> None:
        """Fetch from the beginning once, for the high watermarks, and go there."""
        consumer = self._consumer
        self._to_beginning()
        async with asyncio.timeout(PATIENCE):
            self._life = await self._read_life()
            while any(consumer.highwater(place) is None for place in self._places):
                await asyncio.sleep(0.01)
        for place in self._places:
            consumer.seek(place, consumer.highwater(place))

    def _to_beginning(self) -> None:
        for place in self._places:
            self._consumer.seek(place, 0)

    async def _read_life(self) -> str:
        """The newest life record as it is now; waits until there is one."""
        while True:
            self._lives.seek(_LIFE, 0)
            found = newest((await self._lives.getmany(_LIFE, timeout_ms=1_000)).get(_LIFE, ()))
            if found is not None:
                return found.id

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        next_look = 0.0
        while True:
            try:
                try:
                    records = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=1_000)
                except OffsetOutOfRangeError:  # a new life, most likely
                    records, next_look = {}, 0.0
                if records or loop.time() >= next_look:
                    life = await self._read_life()
                    next_look = loop.time() + LIFE_SECONDS
                    if life != self._life:
                        log.warning("a new life of the topics: reading downlinks from its beginning")
                        self._life = life
                        self._to_beginning()
                        continue
                self.available = True
                for some in records.values():
                    for record in some:
                        await self.publish(record)
            except Exception as error:  # whatever it is, downlinks must not end with it
                if self.available:
                    log.warning("the downlink topic cannot be read (%s); trying again", error)
                self.available = False
                await asyncio.sleep(0.5)

    async def publish(self, record: Any) -> None:
        """Hand one record to the way in; what is none of ours is passed over."""
        self._counts.downlinks += 1
        downlink = Downlink.read(record.key, record.value, record.headers)
        if downlink is None:
            self._counts.downlinks_unreadable += 1
            place = f"{record.topic}-{record.partition}@{record.offset}"
            log.warning("%s is no publish to a device: passed over", place)
            return
        await self._publisher.room()
        self._publisher.deliver(downlink)

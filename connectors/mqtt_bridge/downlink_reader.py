"""Reads tp.downlink.mqtt.v1: every partition, from its end, without a group.

Each bridge reads all of it and publishes what is for its own connections; what passes while a
bridge is away is sent again by agents/downlink when the device connects.

The end of a partition is the high watermark of a fetch (the embedded broker answers ListOffsets
wrongly). A new life of the topics begins at offset 0 again; it is noticed by the life record,
which is read again every second, and by a high watermark below our place.
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

log = logging.getLogger(__name__)

LIFE_SECONDS = 1.0
"""How often the life record is looked at."""

POLL_MS = 500
"""How long a fetch waits for records, ms."""

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
        self._task: asyncio.Task[None] | None = None
        self._life: bytes | None = None
        self._next_look = 0.0

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
        self._consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=POLL_MS,
            max_partition_fetch_bytes=2_000_000,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
        )
        await self._consumer.start()
        self._consumer.assign([*self._places, _LIFE])

    async def _disconnect(self) -> None:
        if self._consumer is not None:
            with suppress(KafkaError, OSError):
                await self._consumer.stop()
            self._consumer = None

    async def _seek_to_ends(self) -> None:
        """Fetch from the beginning once, for the high watermarks, and go there; read the life."""
        consumer = self._consumer
        for place in [*self._places, _LIFE]:
            consumer.seek(place, 0)
        async with asyncio.timeout(20):
            while self._life is None or any(consumer.highwater(place) is None for place in self._places):
                self._see_life(await self._poll(_LIFE, timeout_ms=50))
        for place in self._places:
            consumer.seek(place, consumer.highwater(place))

    async def _poll(self, *places: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        try:
            return await self._consumer.getmany(*places, timeout_ms=timeout_ms, max_records=1_000)  # type: ignore[no-any-return]
        except OffsetOutOfRangeError as error:
            for place in error.args[0]:
                self._consumer.seek(place, 0)
            return {}

    def _see_life(self, records: dict[TopicPartition, list[Any]]) -> bool:
        """Whether the records tell of another life than the one we know."""
        found = records.pop(_LIFE, None)
        if not found:
            return False
        newest = found[-1].value
        changed = self._life is not None and newest != self._life
        self._life = newest
        return changed

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() >= self._next_look:
                    self._next_look = loop.time() + LIFE_SECONDS
                    self._consumer.seek(_LIFE, 0)
                records = await self._poll(timeout_ms=POLL_MS)
                if self._see_life(records) or self._jumped_back():
                    log.warning("a new life of the topics: reading downlinks from its beginning")
                    for place in self._places:
                        self._consumer.seek(place, 0)
                    continue
                self.available = True
                for some in records.values():
                    for record in some:
                        await self._publish(record)
            except (KafkaError, OSError) as error:
                if self.available:
                    log.warning("the downlink topic cannot be read (%s); trying again", error)
                self.available = False
                await asyncio.sleep(0.5)

    def _jumped_back(self) -> bool:
        """Whether a partition ends before our place: it was made anew."""
        for place in self._places:
            high = self._consumer.highwater(place)
            position = self._consumer._subscription.subscription.assignment.state_value(place)._position
            if high is not None and position is not None and high < position:
                return True
        return False

    async def _publish(self, record: Any) -> None:
        self._counts.downlinks += 1
        downlink = Downlink.read(record.key, record.value, record.headers)
        if downlink is None:
            self._counts.downlinks_unreadable += 1
            log.warning("%s-%d@%d is no publish to a device: passed over", *record[:3])
            return
        await self._publisher.room()
        self._publisher.deliver(downlink)

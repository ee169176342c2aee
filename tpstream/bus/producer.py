"""Batches to Kafka with `acks=all`, one in flight per partition, and a word for each when it is there.

aiokafka's `send` costs 8 µs and a future a record; its batch builder 0.6 µs at 500 a batch
(measured). So records are collected per partition while the batch before them is in flight.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import aiokafka
from aiokafka.errors import KafkaError

from tpstream.bus.batch_builder import Item, RecordBatch
from tpstream.bus.envelope import Headers
from tpstream.bus.partitioner import Partitioner
from tpstream.bus.refused import FOR_GOOD, TOO_LARGE, Refused, Sender
from tpstream.errors import Rejected, TpstreamError

if TYPE_CHECKING:
    from tpstream.bus.batch import Outgoing

log = logging.getLogger(__name__)

SMALLEST_BATCH = 1_000
"""Bytes of the batches that go to a topic that takes no larger ones."""

SILENT_SECONDS = 3.0
"""A Kafka that says nothing for so long is not available. A batch itself is given ten seconds."""

Delivered = Callable[[str, int, list[Any], int], None]
"""Called with topic, partition, the tokens of the records in order, and the first one's offset."""


_EARLIEST, _LATEST = -(1 << 63), (1 << 63) - 1
"""Times that Kafka has room for, ms."""

_token: Callable[[Item], Any] = itemgetter(4)
_size: Callable[[Item], int] = itemgetter(5)


class _Place:
    """One partition of one topic: what waits for it, and who waits for what."""

    def __init__(self, topic: str, partition: int, batch_bytes: int) -> None:
        self.topic = topic
        self.partition = partition
        self.batch_bytes = batch_bytes
        """The largest batch that is worth a try: less than the producer's where the topic took no such batch."""
        self.growth = 1
        """By what part of itself `batch_bytes` grows with each batch that is taken: slowly where a topic has a limit
        that will refuse it again, at once where it was for the time of some records."""
        self.pending: deque[Item] = deque()
        self.added = 0
        self.delivered = 0
        self.waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self.drain: asyncio.Task[None] | None = None
        self.asked = math.inf
        """Since when its batch waits for Kafka's word, monotonic seconds; inf: none does."""


class Producer:
    """A producer for the bridge, the lane's topic sinks and the changelogs.

    Kafka away: records wait in memory (see `buffered_bytes`: whoever adds bounds it), the
    same batch is tried again with backoff, for ever, and `available` is False.

    A record that its topic will never take is given up where it has a Sender as its token, and
    is in `refused` then, for whoever flushes; any other is tried for ever, as if Kafka were away.
    """

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        *,
        delivered: Delivered | None = None,
        client_id: str = "tpstream",
        max_request: int = 20_000_000,
        batch_bytes: int = 512_000,
        linger_ms: float = 0.0,
    ) -> None:
        """`linger_ms`: batches of all partitions leave together, at most that often, in one request."""
        self.partitions = partitions
        self.buffered_bytes = 0
        self.unacknowledged = 0
        self.ends: dict[tuple[str, int], int] = {}
        """The offset behind the last acknowledged record of each topic and partition."""
        self.gaps: dict[tuple[str, int], list[tuple[int, int]]] = {}
        """Of watched topics: stretches of offsets (from, to before) between our records that are not known as ours."""
        self.refused: list[Refused] = []
        """Records given up; they count as `buffered_bytes` until `take_refused`."""
        self._delivered = delivered
        self._max_request = max_request
        self.largest = max_request - 10_000
        """Bytes of key and value of the largest record that is taken."""
        self._partition_of = Partitioner(partitions)
        self.bootstrap = bootstrap
        self._client_id = client_id
        self._batch_bytes = batch_bytes
        self._linger = linger_ms / 1000
        self._departure: asyncio.Event | None = None
        self._left_at = 0.0
        self._kafka: aiokafka.AIOKafkaProducer | None = None
        self._places: dict[tuple[str, int], _Place] = {}
        self._watched: set[str] = set()
        self._refused = False
        self._broken = ""
        """Why records are lost that were added: no flush can succeed any more."""

    @property
    def available(self) -> bool:
        """Whether Kafka takes what it is sent: it refused nothing last, and is silent on nothing for long."""
        oldest = min((place.asked for place in self._places.values()), default=math.inf)
        return not self._refused and not self._broken and time.monotonic() - oldest < SILENT_SECONDS

    async def start(self) -> None:
        """Connect; waits for Kafka for ever, saying so once."""
        delay = 0.1
        while True:
            kafka = aiokafka.AIOKafkaProducer(
                bootstrap_servers=self.bootstrap,
                client_id=self._client_id,
                acks="all",
                max_batch_size=self._batch_bytes,
                max_request_size=self._max_request,
                request_timeout_ms=10_000,
                retry_backoff_ms=50,
            )
            try:
                await kafka.start()
            except KafkaError as error:
                await kafka.stop()
                if not self._refused:
                    log.warning("Kafka at %s is not reachable (%s); waiting for it", self.bootstrap, error)
                self._refused = True
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                self._kafka = kafka
                self._refused = False
                return

    async def stop(self) -> None:
        """Close; what Kafka has not acknowledged by then is dropped (call `flush` before)."""
        drains = [place.drain for place in self._places.values() if place.drain is not None]
        for drain in drains:
            drain.cancel()
        await asyncio.gather(*drains, return_exceptions=True)
        if self._kafka is not None:
            await self._kafka.stop()

    def add(
        self,
        topic: str,
        partition: int | None,
        key: bytes,
        value: bytes | None,
        headers: Headers,
        timestamp: int,
        token: Any = None,
    ) -> int:
        """Take a record; its partition is returned. Rejected where Kafka would refuse its size."""
        size = self._checked(topic, key, value, timestamp)
        if partition is None:
            partition = self._partition_of[key]
        place = self._place(topic, partition)
        place.pending.append((key, value, headers, timestamp, token, size))
        place.added += 1
        self.buffered_bytes += size
        self.unacknowledged += 1
        return partition

    def add_all(self, rows: Sequence[Outgoing], token: Any = None) -> None:
        """Take records as `add` does, all or, where one is Rejected, none of them. `token` is each one's."""
        largest, total = self.largest, 0
        for topic, _, key, value, _, timestamp in rows:
            size = len(key) if value is None else len(key) + len(value)
            total += size
            if size > largest or not _EARLIEST <= timestamp <= _LATEST:
                self._checked(topic, key, value, timestamp)
        partition_of = self._partition_of
        last, places = "", dict[int, _Place]()
        for topic, number, key, value, headers, timestamp in rows:
            if topic != last:
                last, places = topic, {}
            partition = partition_of[key] if number is None else number
            place = places.get(partition)
            if place is None:
                place = places[partition] = self._place(topic, partition)
            size = len(key) if value is None else len(key) + len(value)
            place.pending.append((key, value, headers, timestamp, token, size))
            place.added += 1
        self.buffered_bytes += total
        self.unacknowledged += len(rows)

    def _checked(self, topic: str, key: bytes, value: bytes | None, timestamp: int) -> int:
        """The size of a record that Kafka will take; Rejected where it would not."""
        size = len(key) if value is None else len(key) + len(value)
        if size > self.largest:
            raise Rejected(f"{topic}: a record of {size} bytes is above the limit of {self._max_request}")
        if not _EARLIEST <= timestamp <= _LATEST:
            raise Rejected(f"{topic}: a record with the time {timestamp}, which Kafka has no room for")
        return size

    def _place(self, topic: str, partition: int) -> _Place:
        """The partition, with a task that sends what is added to it before the next step of the event loop."""
        place = self._places.get((topic, partition))
        if place is None:
            place = self._places[topic, partition] = _Place(topic, partition, self._batch_bytes)
        if place.drain is None:
            place.drain = asyncio.get_running_loop().create_task(self._drain(place))
        return place

    def watch_gaps(self, topic: str) -> None:
        """Note in `gaps` where our records in this topic do not follow on each other: somebody else writes to it.

        Or it is a batch of ours that Kafka took twice, as the answer to the first time was lost.
        """
        self._watched.add(topic)

    def expect(self, topic: str, partition: int, offset: int) -> None:
        """Our next record in a watched topic should be at this offset; nothing before it is a gap."""
        self.ends[topic, partition] = offset
        self.gaps.pop((topic, partition), None)

    async def flush(self) -> None:
        """Return when Kafka has acknowledged everything that was added before the call, or it is in `refused`.

        Raises TpstreamError where something added can never be sent: end, and begin anew.
        """
        if self._broken:
            raise TpstreamError(self._broken)
        waiting: list[asyncio.Future[None]] = []
        for place in self._places.values():
            if place.delivered < place.added:
                future = asyncio.get_running_loop().create_future()
                place.waiters.append((place.added, future))
                waiting.append(future)
        if waiting:
            await asyncio.gather(*waiting)

    def take_refused(self) -> list[Refused]:
        """What was given up since the last call; whoever takes it answers for it."""
        taken, self.refused = self.refused, []
        self.buffered_bytes -= sum(_size(refused.item) for refused in taken)
        return taken

    async def _drain(self, place: _Place) -> None:
        try:
            while place.pending:
                if self._linger:
                    await self._depart()
                items, base = await self._send_some(place)
                place.delivered += len(items)
                self.unacknowledged -= len(items)
                if isinstance(base, KafkaError):
                    self.refused.append(Refused(place.topic, place.partition, items[0], base))
                else:
                    self._note_end(place, base, len(items))
                    self.buffered_bytes -= sum(map(_size, items))
                while place.waiters and place.waiters[0][0] <= place.delivered:
                    future = place.waiters.popleft()[1]
                    if not future.done():
                        future.set_result(None)
                if self._delivered is not None and not isinstance(base, KafkaError):
                    self._delivered(place.topic, place.partition, list(map(_token, items)), base)
        except Exception as error:
            # What was in hand is neither sent nor told: whoever waits for it is to hear of it, not to hang.
            self._broken = (
                f"{place.topic}-{place.partition}: records could not be sent: {type(error).__name__}: {error}"
            )
            log.error("%s", self._broken)
            for other in self._places.values():
                while other.waiters:
                    future = other.waiters.popleft()[1]
                    if not future.done():
                        future.set_exception(TpstreamError(self._broken))
        finally:
            place.drain = None

    def _note_end(self, place: _Place, base: int, count: int) -> None:
        at = (place.topic, place.partition)
        if place.topic in self._watched and base > (end := self.ends.get(at, base)):
            self.gaps.setdefault(at, []).append((end, base))
        self.ends[at] = base + count

    async def _depart(self) -> None:
        """Wait for the next time that batches leave. A batch costs as much as dozens of records (measured).

        After a silence they leave at once: only a stream of records is held up, to travel together.
        """
        departure = self._departure
        if departure is None:
            departure = self._departure = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.call_at(max(loop.time(), self._left_at + self._linger), self._leave)
        await departure.wait()

    def _leave(self) -> None:
        self._left_at = asyncio.get_running_loop().time()
        departure, self._departure = self._departure, None
        if departure is not None:
            departure.set()

    async def _send_some(self, place: _Place) -> tuple[list[Item], int | KafkaError]:
        """Send one batch from the head of what waits, for as long as it takes; what went, and its offset.

        Or one record that is given up, and why.
        """
        assert self._kafka is not None, "start() was not called"
        items: list[Item] = []
        delay = 0.05
        place.asked = time.monotonic()
        while True:
            try:
                offset = await self._attempt(place, items)
            except FOR_GOOD as error:
                if len(items) > 1:
                    self._halve(place, items, error)
                    continue
                self._refused = not isinstance(items[0][4], Sender)
                if not self._refused:
                    place.asked = math.inf
                    return items, error
                log.warning(
                    "produce to %s-%d: the record of key %r has %d bytes and is not taken (%r); trying again",
                    *(place.topic, place.partition, items[0][0][:100], _size(items[0]), error),
                )
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            # AssertionError: aiokafka knows fewer partitions than there should be (a topic being made anew).
            except (TimeoutError, KafkaError, AssertionError) as error:
                if not self._refused:
                    log.warning("produce to %s-%d failed (%r); trying again", place.topic, place.partition, error)
                self._refused = True
                if isinstance(error, AssertionError):
                    self._kafka.client.force_metadata_update()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)
            else:
                self._refused = False
                place.asked = math.inf
                if place.batch_bytes < self._batch_bytes:  # it may have been one record's fault, or was mended
                    larger = place.batch_bytes + place.batch_bytes // place.growth + 1
                    place.batch_bytes = min(self._batch_bytes, larger)
                return items, offset

    @staticmethod
    def _halve(place: _Place, items: list[Item], error: KafkaError) -> None:
        """Of a batch that Kafka refused, and so has nothing of, put the second half back: which record was it?"""
        half_size = sum(map(_size, items)) // 2
        if isinstance(error, TOO_LARGE):
            place.batch_bytes, place.growth = max(SMALLEST_BATCH, half_size), 64
        else:
            place.batch_bytes, place.growth = half_size + 1, 1
        half = len(items) // 2
        place.pending.extendleft(reversed(items[half:]))
        del items[half:]

    async def _attempt(self, place: _Place, items: list[Item]) -> int:
        """One attempt; `items` is filled the first time and repeated as it is, so that its sequence stays one."""
        assert self._kafka is not None
        if items:
            builder = RecordBatch(self._batch_bytes)
            builder.fill(items)
        else:
            builder = RecordBatch(place.batch_bytes)
            taken = builder.fill(place.pending)
            popleft = place.pending.popleft
            items += [popleft() for _ in range(taken or 1)]
        if len(items) == 1 and _size(items[0]) > self._batch_bytes - 1_000:  # larger than a batch: by itself
            key, value, headers, timestamp, _, _ = items[0]
            metadata = await self._kafka.send_and_wait(
                place.topic,
                value=value,
                key=key,
                partition=place.partition,
                timestamp_ms=timestamp,
                headers=list(headers),
            )
            return int(metadata.offset)
        builder.close()
        future = await self._kafka.send_batch(builder, place.topic, partition=place.partition)
        metadata = await future
        return int(metadata.offset)

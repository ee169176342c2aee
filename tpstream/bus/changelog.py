"""Changelogs: what the values of tables were, in order, and whose word counts.

One owner at a time writes to a changelog partition. Each begins with an epoch above the highest
in it, and every record carries its stamp (`tpstream.bus.stored`). A worker that was stopped
beyond its session and wakes up may still append: whoever reads ignores what is stamped below
something that stands before it, and the owner, which finds that its records did not follow on
each other, writes the keys again that the stranger wrote, so that compaction keeps the right ones.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from tpstream.bus import stored
from tpstream.bus.batch import Record
from tpstream.bus.cell import Prepared
from tpstream.bus.position import Life
from tpstream.bus.producer import Producer
from tpstream.bus.progress import Place
from tpstream.bus.reader import read_to_end
from tpstream.bus.state import PartitionState
from tpstream.bus.stored import CURRENT, HEAD_BYTES, OWNER, Foreign, unpack_stamp
from tpstream.bus.table import Table
from tpstream.errors import TpstreamError, Unavailable
from tpstream.observability import metrics

log = logging.getLogger(__name__)

CHUNK = 5_000
"""Values that are written to changelogs at a time: so many wait in the producer, and so long the loop stands still."""


class Superseded(Exception):
    """The group has moved on: what this worker holds is not its own any more."""


class Folded(NamedTuple):
    """What a stretch of a changelog partition says."""

    values: dict[str, bytes | None]
    """The last of each key; None: deleted."""
    stamp: int
    """The highest so far."""
    ignored: set[str]
    """Keys of which an owner spoke that had lost the partition: to be written again, for compaction's sake."""
    foreign: int
    """Records that are not ours."""
    settled_at: int = 0
    """When the values of an earlier life that an owner has written here were last changed, wall clock in ms."""


def changelog_of(group: str, table: Table[Any]) -> str:
    """The changelog topic of a table in a consumer group, named as Faust names them."""
    return f"{group}-{table.name}-changelog"


def fold(records: Sequence[Record], stamp: int) -> Folded:
    """What records say that follow on a highest stamp. Raises Newer."""
    values: dict[str, bytes | None] = {}
    ignored: set[str] = set()
    foreign = settled_at = 0
    for record in records:
        value = record.value
        try:
            if value is not None and value[:1] == CURRENT and len(value) >= HEAD_BYTES:
                own = unpack_stamp(value)[1]  # as `stamp_of` does: its call is a tenth of a recovery (measured)
            else:
                own = stored.stamp_of(value, record.headers)
            key = (record.key or b"").decode()
        except (Foreign, UnicodeDecodeError):
            foreign += 1
            continue
        if key[:1] == "\0" and record.key != OWNER:
            foreign += 1  # no table has such a key
        elif own < stamp:
            if record.key != OWNER:
                ignored.add(key)
        else:
            stamp = own
            if record.key != OWNER:
                values[key] = value
            elif value is not None:
                settled_at = max(settled_at, stored.settled_in(value))
    return Folded(values, stamp, ignored, foreign, settled_at)


def replay(state: PartitionState, table: str, records: Sequence[Record], life: Life) -> Folded:
    """Bring a partition's state on disk on by these records, which follow on what it has."""
    known = state.meta.stamps.get(table, 0) if state.life == life else 0
    folded = fold(records, known)
    offsets, stamps = {table: records[-1].offset + 1}, {table: folded.stamp}
    again = {table: folded.ignored} if folded.ignored else {}
    state.write(life, {table: folded.values}, offsets, stamps, again, folded.settled_at)
    if folded.foreign:
        metrics.QUARANTINED.labels(table).inc(folded.foreign)
        log.error("changelog of %s: %d records before offset %d are not tpstream's and are left out",
                  table, folded.foreign, records[-1].offset + 1)  # fmt: skip
    return folded


class Changelogs:
    """The changelogs that a worker writes, of the partitions that it owns."""

    def __init__(self, bootstrap: str, producer: Producer, group: str, tables: Sequence[Table[Any]]) -> None:
        self.tables = tuple(tables)
        self.epochs: dict[int, int] = {}
        """Of each owned partition; every record that its owner appends anywhere carries it."""
        self._bootstrap = bootstrap
        self._producer = producer
        self._topics = {table.name: changelog_of(group, table) for table in tables}
        self._tables = {topic: name for name, topic in self._topics.items()}
        self._checkpoints: dict[int, int] = {}
        self._id = os.urandom(8)
        for topic in self._topics.values():
            producer.watch_gaps(topic)

    async def begin(self, states: Mapping[int, PartitionState], ends: Mapping[Place, int]) -> None:
        """Become the owner: an epoch above all that stand in the changelogs, which are read to `ends`.

        Values of an earlier life that these say nothing of are written to them. Call once the tables are there.
        """
        for number, state in states.items():
            self.epochs[number] = (state.stamp >> 32) + 1
            for topic in self._topics.values():
                self._producer.expect(topic, number, ends.get((topic, number), 0))
        beginning = set(states)
        while beginning:
            for number in beginning:
                self._mark(number, states[number].meta.settled_at)
            await self._producer.flush()
            highest = await self.heal()
            beginning = {number for number in beginning if highest.get(number, -1) >= self.epochs[number]}
            for number in beginning:  # another began at the same time
                self.epochs[number] = highest[number] + 1
        for number, state in states.items():
            if state.owes:
                await self._write_earlier(number, state)

    async def _write_earlier(self, number: int, state: PartitionState) -> None:
        log.warning("NEW LIFE of the topics: values of partition %d are kept, marks start anew", number)
        stamp = self.stamp(number)
        for table, topic in self._topics.items():
            for count, (key, data) in enumerate(state.owed(table), 1):
                self._add(topic, number, key.encode(), stored.restamp(data, stamp), ())
                if count % CHUNK == 0:
                    await self._producer.flush()
        await self._producer.flush()
        # Not before all of them are there: who reads this forgets what it has of earlier lives itself.
        self._mark(number, max(state.meta.settled_at, state.meta.earlier_at))
        await self._producer.flush()
        state.settled()

    def stamp(self, number: int) -> int:
        """The stamp of what is written to a partition until `next`."""
        return stored.stamp(self.epochs[number], self._checkpoints.get(number, 0))

    def next(self) -> None:
        """A checkpoint begins."""
        for number in self.epochs:
            self._checkpoints[number] = self._checkpoints.get(number, 0) + 1

    def release(self) -> None:
        """The partitions are not ours any more."""
        self.epochs.clear()
        self._checkpoints.clear()

    async def fits(self, prepared: Mapping[tuple[str, int], Prepared]) -> None:
        """Raises Unavailable where a value is larger than Kafka takes: to go on without it would be to lose it."""
        for (table, number), written in prepared.items():
            for key, value in written.items():
                if value is not None and len(key.encode()) + len(value) > self._producer.largest:
                    raise Unavailable(
                        f"table {table}, partition {number}: the value of key {key!r} has {len(value)} bytes, "
                        f"and {self._producer.largest} can be stored; have its agent keep less, and restart the worker"
                    )

    async def write(self, prepared: Mapping[tuple[str, int], Prepared], still: Callable[[], None]) -> None:
        """Append values, a chunk after the other, and return when each is acknowledged.

        `still` raises where the partitions were let go meanwhile: then no more is said in their changelogs.
        """
        room = CHUNK
        for (table, number), written in prepared.items():
            topic = self._topics[table]
            deletion = stored.tombstone_header(self.stamp(number))
            for key, value in written.items():
                self._add(topic, number, key.encode(), value, deletion if value is None else ())
                room -= 1
                if not room:
                    await self._producer.flush()
                    still()
                    room = CHUNK
        await self._producer.flush()

    async def check(self) -> None:
        """See that no stranger's value counts instead of one of ours. Raises Superseded where another has begun."""
        for number, epoch in (await self.heal()).items():
            if epoch > self.epochs.get(number, epoch):
                raise Superseded(f"partition {number} has an owner of epoch {epoch}, ours is {self.epochs[number]}")

    async def heal(self) -> dict[int, int]:
        """See to what strangers wrote between our records; the highest epoch among that, by partition."""
        highest: dict[int, int] = {}
        for (topic, number), gaps in [(place, gaps) for place, gaps in self._producer.gaps.items() if gaps]:
            table = self._tables.get(topic)
            if table is None or number not in self.epochs:
                gaps.clear()
                continue
            while gaps:
                start, end = gaps[0]
                keys: set[str] = set()
                async for record in self._between(TopicPartition(topic, number), start, end):
                    keys |= self._stranger(record, number, highest)
                gaps.pop(0)
                part = next(t for t in self.tables if t.name == table).partitions.get(number)
                if keys and part is not None:
                    log.warning("%d keys of %s-%d were written out of turn; they come again", len(keys), topic, number)
                    for key in keys:
                        part.write_again(key)
        return highest

    def _stranger(self, record: Record, number: int, highest: dict[int, int]) -> set[str]:
        """The key of a record that somebody else may have written; none where it is known to be ours."""
        try:
            stamp = stored.stamp_of(record.value, record.headers)
            key = (record.key or b"").decode()
        except (TpstreamError, UnicodeDecodeError):
            return set()
        epoch = stamp >> 32
        if record.key == OWNER:
            if record.value is not None and record.value.endswith(self._id):
                return set()  # ours, sent again
            highest[number] = max(highest.get(number, 0), epoch)
            return set()
        if key[:1] == "\0":
            return set()  # no table has such a key
        if epoch == self.epochs[number]:
            # A request of our own: sent twice, or taken after a later one, which it must not outlive.
            return set() if stamp >= self.stamp(number) else {key}
        highest[number] = max(highest.get(number, 0), epoch)
        return {key}

    async def _between(self, place: TopicPartition, start: int, end: int) -> Any:
        async for _, records in read_to_end(self._bootstrap, {place: start}, bare=True):
            for record in records:
                if record.offset < end:
                    yield record
            if records[-1].offset + 1 >= end:
                return

    def ends(self, tables: Sequence[str], number: int) -> dict[str, int]:
        """The offset behind the last acknowledged record of these tables' changelogs."""
        known = self._producer.ends
        return {name: known[topic, number] for name in tables if (topic := self._topics[name], number) in known}

    def _mark(self, number: int, settled_at: int) -> None:
        """Say in all changelogs of a partition whose it is. Compaction keeps the last: each says all there is."""
        for topic in self._topics.values():
            self._add(topic, number, OWNER, stored.marker(self.stamp(number), self._id, settled_at), ())

    def _add(self, topic: str, number: int, key: bytes, value: bytes | None, headers: Any) -> None:
        # The time is the log's own; no fold reads it.
        self._producer.add(topic, number, key, value, headers, time.time_ns() // 1_000_000)

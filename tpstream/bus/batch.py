"""A batch: what a handler gets, and where its effects wait until it has returned.

Nothing that a handler does is seen by anyone before it returns: sends and rows are kept
here, table writes can be undone. If it raises, all of it is dropped without trace, and the
lane hands the records over again.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec

from tpstream.bus.envelope import (
    RAW_VERSION,
    DerivedHeader,
    Headers,
    Kind,
    header,
    pack_derived,
    pack_published,
    position_in,
)
from tpstream.bus.partitioner import partition_of
from tpstream.bus.position import Life, Position
from tpstream.bus.sink import Sink
from tpstream.bus.topics import Topic, uplink_raw
from tpstream.errors import TpstreamError
from tpstream.messages import DeadLetter


class Record(Protocol):
    """A Kafka record as the client hands it over. Timestamp in ms."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Outgoing(NamedTuple):
    """A record to be produced once its batch is done."""

    topic: str
    partition: int | None
    """None: by the key's hash."""
    key: bytes
    value: bytes | None
    headers: Headers
    timestamp: int


MOST_SENT = 32_000_000
"""Bytes that a batch may send, unless it is of one record."""


@dataclass(slots=True)
class Batch:
    """Records of one partition of one topic, in order, for one agent."""

    topic: Topic[Any]
    partition: int
    records: Sequence[Record]
    life: Life
    agent: str
    services: Any
    """What the worker gives to its handlers; of tpstream's own worker: `tpstream.app.Services`."""
    outgoing: list[Outgoing] = field(default_factory=list)
    rows: list[tuple[Sink, Any, Sequence[Position]]] = field(default_factory=list)
    tables: Collection[Any] = ()
    """The tables that its agent declares: what is written to others could not be undone."""
    weight: int = 0
    """Bytes of what was sent."""
    overfull: bool = False
    """More was sent than a batch may hold: nothing of it is kept, and its records come again in halves."""
    _foreign: int = -1
    """What stands for the raw partition in positions of records that come from elsewhere; -1: not computed yet."""

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def values(self) -> Iterator[tuple[Record, Any]]:
        """Each record with its decoded value; ticks and configuration records are passed over.

        Raises TpstreamError at a value that is none of the topic's: topic, partition, offset and what is wrong.
        """
        topic = self.topic
        decode = None if topic.decoder is None else topic.decoder.decode
        try:
            for record in self.records:
                value = record.value
                if value is None:
                    continue
                headers = record.headers
                if headers:
                    name, first = headers[0]
                    data = first if name == "tp" else header(headers, "tp")
                    if data and data[1:2] != _PUBLISH_BYTE and kind_of(record) is not Kind.PUBLISH:
                        continue
                yield record, value if decode is None else decode(value)
        except msgspec.DecodeError as error:
            raise TpstreamError(f"{self.where(record)}: {error}") from None

    def where(self, record: Record) -> str:
        """A record's place as a person says it: topic-partition, and offset."""
        return f"{self.topic.name}-{self.partition} offset {record.offset}"

    def position(self, record: Record) -> Position:
        """Where the record, or the raw record that it was made from, stands in the raw topic."""
        if self.topic is uplink_raw:
            return _made(Position, (self.life, self.partition, record.offset, 0))
        data = header(record.headers, "tp")
        return self._place(record) if data is None or data[:1] == _RAW_BYTE else position_in(data)

    def derived(self, record: Record) -> DerivedHeader:
        """The `tp` header of a record on a decoded topic.

        A record without one (somebody else's producer, or a tick in a user's topic) stands for
        itself: its position is its own place in its topic, told apart from raw positions, and
        from those of other topics, by a partition number beyond them.
        """
        data = header(record.headers, "tp")
        if data is not None and data[:1] != _RAW_BYTE:
            return DerivedHeader.unpack(data)
        place = self._place(record)
        return _made(DerivedHeader, (kind_of(record), place, place))

    def _place(self, record: Record) -> Position:
        number = self._foreign
        if number < 0:
            number = self._foreign = foreign(self.topic.name, self.partition)
        return _made(Position, (self.life, number, record.offset, 0))

    def send(
        self,
        topic: Topic[Any],
        value: Any,
        *,
        key: str,
        position: Position,
        origin: Position | None = None,
        timestamp: int,
        kind: Kind = Kind.PUBLISH,
        headers: Headers = (),
        partition: int | None = None,
    ) -> None:
        """Produce a record when this batch is done. `partition` None: by the key's hash.

        `value` is one of the topic's type, bytes that are one already encoded, or None (a tombstone).
        Raises TpstreamError where value, key or timestamp (ms) is of another type.
        """
        if key.__class__ is not str or timestamp.__class__ is not int:
            self._check(topic, key, timestamp, position)
        if value is None or value.__class__ is bytes:
            data = value
        elif value.__class__ is topic.accepts or isinstance(value, topic.accepts):
            try:
                data = _encode(value)
            except (TypeError, ValueError) as error:
                raise TpstreamError(f"{self._sending(topic, position)}: the value: {error}") from None
        else:
            raise TpstreamError(
                f"{self._sending(topic, position)}: the value is {_kind(value)}, not {topic.accepts.__name__}"
            )
        if data is not None:
            self.weight += len(data)
            if self.weight > MOST_SENT and len(self.records) > 1:
                self.overfull = True
                self.outgoing.clear()
                return
        if origin is None and kind is _PUBLISH:  # as pack_derived does: every record that is sent passes here
            life, number, offset, item = position
            tp = pack_published(life, number, offset, item)
        else:
            tp = pack_derived(kind, position, origin)
        hashed = key.encode()
        if not topic.by_device:
            partition = 0
        elif partition is None and topic.partitions is not None:
            partition = partition_of(hashed, topic.partitions)
        sent = [("tp", tp), *headers] if headers else [("tp", tp)]
        self.outgoing.append(_made(Outgoing, (topic.name, partition, hashed, data, sent, timestamp)))

    def _check(self, topic: Topic[Any], key: Any, timestamp: Any, position: Position) -> None:
        sending = self._sending(topic, position)
        if not isinstance(key, str):
            raise TpstreamError(f"{sending}: the key is {_kind(key)}, not str")
        if not isinstance(timestamp, int):
            raise TpstreamError(f"{sending}: the timestamp is {_kind(timestamp)}, not int (milliseconds)")

    def _sending(self, topic: Topic[Any], position: Position) -> str:
        whose = f"of what stands at {position.partition}-{position.offset}"
        return f"agent {self.agent} on {self.topic.name}-{self.partition} sends to {topic.name} {whose}"

    def send_beside(self, record: Record, topic: Topic[Any], value: Any, *, key: str) -> None:
        """Send what this agent made of a record to a topic on which folds find that record too.

        Its position is in a sequence of the agent's own (with the record's offset), so that a
        fold that is already past the record does not take this for a repeat of it; its origin,
        and so the identity of what follows from it, and its time are the record's.
        """
        position, origin = self.beside(record)
        self.send(topic, value, key=key, position=position, origin=origin, timestamp=record.timestamp)

    def beside(self, record: Record, number: int = 0) -> tuple[Position, Position]:
        """Position and origin of what this agent makes of a record and sends beside what stands there.

        `number` tells several of one record apart: each has a sequence of its own, as a fold takes
        a second one at the same place for a repeat of the first; and from the second on an origin.
        """
        if self.topic is uplink_raw:
            position = origin = self.position(record)
        else:
            _, position, origin = self.derived(record)
        life, partition, offset, item = position
        own = _sequence(self.agent, partition, number)
        if number:
            origin = _made(Position, (origin[0], own, origin[2], origin[3]))
        return _made(Position, (life, own, offset, item)), origin

    def control(self, topic: Topic[Any], record: Record, kind: Kind) -> None:
        """Pass a tick or configuration record on, in order, to the same partition of `topic`."""
        position = self.position(record)
        self.send(
            topic,
            record.value,
            key="",
            position=position,
            timestamp=record.timestamp,
            kind=kind,
            partition=self.partition,
        )

    def add(self, sink: Sink, rows: Any, positions: Sequence[Position] = ()) -> None:
        """Give rows to a sink when this batch is done."""
        self.rows.append((sink, rows, positions))

    def dead_letter(self, letter: DeadLetter, position: Position) -> None:
        """Send a dead letter when this batch is done; it stays in this partition."""
        from tpstream.bus import topics

        self.send(
            topics.dead_letters,
            letter,
            key=letter.device,
            position=position,
            timestamp=letter.ts,
            partition=self.partition,
        )


FOREIGN = 1 << 30
"""From here on are the partition numbers in positions of records that do not come from the raw topic."""


BESIDE = 1 << 29
"""From here up to twice as much are the partition numbers of positions made by `send_beside`."""


_PUBLISH = Kind.PUBLISH
_PUBLISH_BYTE = bytes((Kind.PUBLISH,))
_RAW_BYTE = bytes((RAW_VERSION,))
_KIND: Mapping[bytes, Kind] = {bytes((kind,)): kind for kind in Kind}
_encode = msgspec.json.Encoder().encode
_made = tuple.__new__


def foreign(topic: str, partition: int) -> int:
    """The partition number in positions of records of a topic that were not made from the raw topic's.

    Offsets of two topics say nothing of each other; so that no mark compares them, each topic has
    a stretch of its own (1,024 partitions; a hash, so that two share one with a chance of 1 in 2 million).
    """
    return FOREIGN + (zlib.crc32(topic.encode()) % (1 << 20) << 10) + partition


@lru_cache(maxsize=4_096)
def _sequence(agent: str, partition: int, number: int) -> int:
    name = f"{agent}:{partition}" + (f":{number}" if number else "")
    return BESIDE + zlib.crc32(name.encode()) % BESIDE


def kind_of(record: Record) -> Kind:
    """The kind in the second byte of either `tp` header; PUBLISH where there is none."""
    data = header(record.headers, "tp")
    if not data:
        return Kind.PUBLISH
    kind = _KIND.get(data[1:2])
    if kind is None:
        raise TpstreamError(f"header tp of unknown kind {data[:2].hex()}: newer than this worker")
    return kind


def _kind(value: Any) -> str:
    """A value's type, as a person names it."""
    return "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"

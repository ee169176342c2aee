"""A batch: what a handler gets, and where its effects wait until it has returned.

Nothing that a handler does is seen by anyone before it returns: sends and rows are kept
here, table writes can be undone. If it raises, all of it is dropped without trace, and the
lane hands the records over again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tpstream.bus.envelope import DerivedHeader, Headers, Kind, header
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

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def values(self) -> Iterator[tuple[Record, Any]]:
        """Each record with its decoded value; ticks and configuration records are passed over."""
        decode = self.topic.decode
        for record in self.records:
            if record.value is not None and kind_of(record) is Kind.PUBLISH:
                yield record, decode(record.value)

    def position(self, record: Record) -> Position:
        """Where the record, or the raw record that it was made from, stands in the raw topic."""
        if self.topic is uplink_raw:
            return Position(self.life, self.partition, record.offset)
        return self.derived(record).position

    def derived(self, record: Record) -> DerivedHeader:
        """The `tp` header of a record on a decoded topic.

        A record without one (somebody else's producer) stands for itself: its position is
        its own place in its topic, told apart from raw positions by a partition number
        beyond them.
        """
        data = header(record.headers, "tp")
        if data is not None:
            return DerivedHeader.unpack(data)
        place = Position(self.life, FOREIGN + self.partition, record.offset)
        return DerivedHeader(Kind.PUBLISH, place, place)

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
        """Produce a record when this batch is done. `partition` None: by the key's hash."""
        tp = DerivedHeader(kind, position, origin or position).pack()
        data = value if value is None or isinstance(value, bytes) else topic.encode(value)
        if not topic.by_device:
            partition = 0
        self.outgoing.append(Outgoing(topic.name, partition, key.encode(), data, [("tp", tp), *headers], timestamp))

    def send_beside(self, record: Record, topic: Topic[Any], value: Any, *, key: str) -> None:
        """Send what this agent made of a record to a topic on which folds find that record too.

        Its position is in a sequence of the agent's own (with the record's offset), so that a
        fold that is already past the record does not take this for a repeat of it; its origin,
        and so the identity of what follows from it, and its time are the record's.
        """
        position = self.position(record)
        origin = position if self.topic is uplink_raw else self.derived(record).origin
        own = BESIDE + zlib.crc32(f"{self.agent}:{position.partition}".encode()) % BESIDE
        beside = position._replace(partition=own)
        self.send(topic, value, key=key, position=beside, origin=origin, timestamp=record.timestamp)

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
"""Added to the partition in positions of records that do not come from the raw topic."""


BESIDE = 1 << 29
"""From here up to twice as much are the partition numbers of positions made by `send_beside`."""


def kind_of(record: Record) -> Kind:
    """The kind in the second byte of either `tp` header; PUBLISH where there is none."""
    data = header(record.headers, "tp")
    if not data:
        return Kind.PUBLISH
    try:
        return Kind(data[1])
    except (IndexError, ValueError):
        raise TpstreamError(f"header tp of unknown kind {data[:2].hex()}: newer than this worker") from None

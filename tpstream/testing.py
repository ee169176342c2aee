"""Try a handler without Kafka: make a batch, run the handler, look at what it would send.

batch = make_batch(topics.uplink_telemetry, [Telemetry("d1", (Point("t", 0, 1.0),))])
await handler(batch)
assert sent(batch, topics.windows) == [...]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tpstream.bus.batch import Batch
from tpstream.bus.envelope import DerivedHeader, Headers, Kind
from tpstream.bus.position import Life, Position
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.bus.topics import Topic

V = TypeVar("V")
LIFE = Life(bytes(range(16)))


@dataclass(slots=True)
class FakeRecord:
    """A record as the Kafka client would hand it over."""

    value: bytes | None
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = b""
    headers: Headers = field(default_factory=tuple)


def make_batch(
    topic: Topic[V],
    values: Sequence[V],
    *,
    services: Any = None,
    timestamps: Sequence[int] | None = None,
    first_offset: int = 0,
    kind: Kind = Kind.PUBLISH,
    tables: Sequence[Table[Any]] = (),
    partition: int = 0,
    keys: Sequence[str] | None = None,
) -> Batch:
    """A batch of a decoded topic with those values, at consecutive offsets of one raw partition."""
    records = []
    for n, value in enumerate(values):
        position = Position(LIFE, partition, first_offset + n)
        header = DerivedHeader(kind, position, position).pack()
        key = keys[n] if keys else getattr(value, "device", "")
        stamp = timestamps[n] if timestamps else 0
        records.append(FakeRecord(topic.encode(value), first_offset + n, stamp, key.encode(), (("tp", header),)))
    return batch_of(topic, records, services=services, tables=tables, partition=partition)


def batch_of(
    topic: Topic[Any],
    records: Sequence[FakeRecord],
    *,
    services: Any = None,
    tables: Sequence[Table[Any]] = (),
    partition: int = 0,
) -> Batch:
    """A batch of records made by hand (raw records, say); its tables have that partition: empty, where it is new."""
    for table in tables:
        table.partitions.setdefault(partition, TablePartition(table, partition, LIFE))
    return Batch(topic, partition, records, LIFE, "test", services, tables=tables)


def sent(batch: Batch, topic: Topic[V], kind: Kind = Kind.PUBLISH) -> list[V]:
    """The values that the handler sent to a topic, decoded, of that kind."""
    return [
        topic.decode(out.value)
        for out in batch.outgoing
        if out.topic == topic.name and out.value is not None and dict(out.headers)["tp"][1] == kind
    ]

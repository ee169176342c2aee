"""How often what the devices said by MQTT stands in the raw topic, and how often the decoded topic tells of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiokafka
from fault.campaign.spoken import PREFIX, number

from tpstream.bus.envelope import DerivedHeader, Kind, RawHeader, header

RAW, DECODED = "tp.uplink.raw.v1", "tp.uplink.telemetry.v1"


@dataclass(slots=True)
class Heard:
    """Of each message, by its number."""

    records: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """How many records of the raw topic say it."""
    connections: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """On which connections (session numbers) it was said: on each of them as often as the bridge produced it."""
    told: dict[int, set[tuple[int, int]]] = field(default_factory=lambda: defaultdict(set))
    """Under which origins (raw partition and offset) the decoded topic tells of it."""

    @property
    def retried(self) -> int:
        """Records that a bridge produced again."""
        return sum(self.records.values()) - sum(map(len, self.connections.values()))

    @property
    def resent(self) -> int:
        """Messages that a device sent again, on another connection, and Kafka has from both."""
        return sum(len(sessions) - 1 for sessions in self.connections.values())


def heard(bootstrap: str, partitions: int) -> Heard:
    """Read both topics, by a plain Kafka client."""
    return asyncio.run(_read(bootstrap, partitions))


async def _read(bootstrap: str, partitions: int) -> Heard:
    found = Heard()
    saying: dict[tuple[int, int], int] = {}
    prefix = PREFIX.encode()
    async for record in records(bootstrap, RAW, partitions):
        if not (record.key or b"").startswith(prefix):
            continue
        tp = RawHeader.unpack(header(record.headers, "tp") or b"")
        if tp.kind is Kind.PUBLISH:
            n = saying[record.partition, record.offset] = number(record.value)
            found.records[n] += 1
            found.connections[n].add(tp.session)
    async for record in records(bootstrap, DECODED, partitions):
        if (record.key or b"").startswith(prefix):
            origin = DerivedHeader.unpack(header(record.headers, "tp") or b"").origin
            found.told[saying[origin.partition, origin.offset]].add((origin.partition, origin.offset))
    return found


async def records(bootstrap: str, topic: str, partitions: int) -> AsyncIterator[Any]:
    """All that a topic holds now, partition by partition as it comes."""
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [aiokafka.TopicPartition(topic, number) for number in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()

"""What the topic of windows says, read by a plain Kafka client."""

from __future__ import annotations

import asyncio
import json

import aiokafka
from fault.campaign.oracle import WindowRow

from tpstream.bus.envelope import DerivedHeader, Kind, header

TOPIC = "tp.windows.v1"


def windows_told(bootstrap: str, partitions: int) -> list[tuple[WindowRow, str]]:
    """Each record of the topic: the window, and the origin in its header, as text."""
    return asyncio.run(_read(bootstrap, partitions))


async def _read(bootstrap: str, partitions: int) -> list[tuple[WindowRow, str]]:
    consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    told: list[tuple[WindowRow, str]] = []
    try:
        places = [aiokafka.TopicPartition(TOPIC, number) for number in range(partitions)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    tp = DerivedHeader.unpack(header(record.headers, "tp") or b"")
                    if tp.kind is Kind.PUBLISH and record.value:
                        w = json.loads(record.value)
                        row = WindowRow(w["window"], w["device"], w["key"], w["start"], w["value"], w["count"])
                        told.append((row, tp.origin.identity()))
    finally:
        await consumer.stop()
    return told

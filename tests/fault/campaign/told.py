"""What the topic of windows says, read by a plain Kafka client."""

from __future__ import annotations

import asyncio
import json

from fault.campaign.heard import records
from fault.campaign.oracle import WindowRow

from tpstream.bus.envelope import DerivedHeader, Kind, header

TOPIC = "tp.windows.v1"


def windows_told(bootstrap: str, partitions: int) -> list[tuple[WindowRow, str]]:
    """Each record of the topic: the window, and the origin in its header, as text."""
    return asyncio.run(_read(bootstrap, partitions))


async def _read(bootstrap: str, partitions: int) -> list[tuple[WindowRow, str]]:
    told: list[tuple[WindowRow, str]] = []
    async for record in records(bootstrap, TOPIC, partitions):
        tp = DerivedHeader.unpack(header(record.headers, "tp") or b"")
        if tp.kind is Kind.PUBLISH and record.value:
            w = json.loads(record.value)
            row = WindowRow(w["window"], w["device"], w["key"], w["start"], w["value"], w["count"])
            told.append((row, tp.origin.identity()))
    return told

"""Writes what passes by to the store, in columns; a consumer group of its own (role store)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, kind_of
from tpstream.bus.envelope import Kind, header
from tpstream.bus.topics import Topic
from tpstream.observability import metrics
from tpstream.storage import columns
from tpstream.storage.native import Block

_PUBLISH = bytes((Kind.PUBLISH,))
_BUILDERS: dict[Topic[Any], tuple[str, Callable[..., Block]]] = {
    topics.uplink_telemetry: ("telemetry", columns.telemetry),
    topics.windows: ("windows", columns.windows),
    topics.alarms: ("alarms", columns.alarms),
    topics.command_status: ("commands", columns.commands),
    topics.dead_letters: ("dead_letters", columns.dead_letters),
    topics.device_status: ("device_status", columns.device_status),
}


@app.batch_agent(*_BUILDERS, role="store", name="store")
async def store(batch: Batch) -> None:
    """Rows are made from origins, so that what is handled twice is one row to every reader."""
    values, headers, delivered = [], [], []
    # What batch.values() and batch.derived() do, at a fraction of their cost: every point passes here.
    for record in batch.records:
        value, found = record.value, record.headers
        if value is None:
            continue
        data = found[0][1] if found and found[0][0] == "tp" else header(found, "tp")
        if not data:
            data = batch.derived(record).pack()
        elif data[1:2] != _PUBLISH and kind_of(record) is not Kind.PUBLISH:
            continue
        values.append(value)
        headers.append(data)
        delivered.append(record.timestamp)
    if values:
        table, build = _BUILDERS[batch.topic]
        rows = build([*map(batch.topic.decode, values)], columns.Origins.read(headers), delivered)
        if batch.topic is topics.uplink_telemetry:
            metrics.POINTS.labels("store").inc(rows.size)
        services: Services = batch.services
        batch.add(getattr(services.store, table), rows)

"""Writes what passes by to the store, in columns; a consumer group of its own (role store)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, kind_of
from tpstream.bus.envelope import Kind, header, origin_in
from tpstream.bus.topics import Topic
from tpstream.observability import metrics
from tpstream.storage import columns

_BUILDERS: dict[Topic[Any], tuple[str, Callable[..., columns.Columns]]] = {
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
    messages, origins, delivered = [], [], []
    decode = batch.topic.decode
    # What batch.values() and batch.derived() do, at half their cost: every point passes here.
    for record in batch.records:
        value, data = record.value, header(record.headers, "tp")
        if value is None or (data and data[1] != Kind.PUBLISH and kind_of(record) is not Kind.PUBLISH):
            continue
        messages.append(decode(value))
        origins.append(origin_in(data) if data else batch.derived(record).origin)
        delivered.append(record.timestamp)
    if messages:
        table, build = _BUILDERS[batch.topic]
        rows = build(messages, origins, delivered)
        if batch.topic is topics.uplink_telemetry:
            metrics.POINTS.labels("store").inc(len(rows[0]))
        services: Services = batch.services
        batch.add(getattr(services.store, table), rows)

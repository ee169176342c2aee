"""A real part for tests: the bridge, in the test's own event loop, and what it wrote to the raw topic."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import paho.mqtt.client as paho
from aiokafka import TopicPartition

from connectors.mqtt_bridge.bridge import Bridge
from tpstream.bus import topics
from tpstream.bus.envelope import Kind, RawHeader
from tpstream.bus.reader import read_to_end
from tpstream.settings import Settings


class Raw(NamedTuple):
    """A record of the raw topic, read."""

    kind: Kind
    device: str
    topic: str
    payload: bytes
    header: RawHeader
    headers: dict[str, bytes]
    timestamp: int
    partition: int
    offset: int


async def raw_records(settings: Settings, device: str | Iterable[str] = (), kinds: Iterable[Kind] = ()) -> list[Raw]:
    """All raw records so far, in order per partition; of those devices and kinds only, if given."""
    devices = {device} if isinstance(device, str) else set(device)
    wanted = set(kinds)
    starts = {TopicPartition(topics.uplink_raw.name, n): 0 for n in range(settings.partitions)}
    found = []
    async for place, records in read_to_end(settings.bootstrap, starts):
        for record in records:
            one = read(record, place.partition)
            if (not devices or one.device in devices) and (not wanted or one.kind in wanted):
                found.append(one)
    return found


def read(record: Any, partition: int) -> Raw:
    """A record as the Kafka client gives it."""
    headers = dict(record.headers)
    header = RawHeader.unpack(headers["tp"])
    topic = headers.get("topic", b"").decode()
    key = (record.key or b"").decode()
    return Raw(header.kind, key, topic, record.value, header, headers, record.timestamp, partition, record.offset)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Bridge]:
    """A bridge that takes devices; stopped in good order at the end."""
    bridge = Bridge(settings)
    try:
        await bridge.start()
        yield bridge
    finally:
        await bridge.stop()


def client(
    settings: Settings,
    device: str = "",
    *,
    version: int = paho.MQTTv5,
    client_id: str = "",
    connect: bool = True,
    port: int | None = None,
    prepare: Callable[[paho.Client], None] = lambda made: None,
) -> paho.Client:
    """A paho client in a thread of its own, connected; `stop` it with `loop_stop` after `disconnect`."""
    more = {"clean_session": True} if version == paho.MQTTv311 else {}
    made = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, **more)
    if device:
        made.username_pw_set(device, "")
    made.max_inflight_messages_set(20)
    prepare(made)
    if connect:
        made.connect(settings.host, port or settings.mqtt_port, keepalive=30)
        made.loop_start()
    return made

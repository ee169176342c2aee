"""A real part for tests: the bridge, in the test's own event loop, and what it wrote to the raw topic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiokafka
import paho.mqtt.client as paho
from aiokafka import TopicPartition
from parts.kafka import Kafka

from connectors.mqtt_bridge.bridge import Bridge
from tpstream.bus import topics
from tpstream.bus.envelope import Kind, RawHeader
from tpstream.bus.partitioner import partition_of
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


async def send_downlink(settings: Settings, device: str, topic: str, payload: bytes, message_id: str = "") -> None:
    """Write a record of tp.downlink.mqtt.v1, as agents/downlink does."""
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await producer.start()
    headers = [("topic", topic.encode())] + ([("message_id", message_id.encode())] if message_id else [])
    place = partition_of(device.encode(), settings.partitions)
    await producer.send_and_wait(
        topics.downlink_mqtt.name, payload, key=device.encode(), partition=place, headers=headers
    )
    await producer.stop()


async def pause(kafka: Kafka) -> None:
    """Stop Kafka with SIGSTOP, and return when it has stopped: on a busy machine it answers for a while."""
    kafka.pause()
    while _state(kafka.process.pid) != "T":
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

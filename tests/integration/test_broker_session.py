"""Our session with a broker in raw records: the same while the broker keeps it, another when it has lost it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import paho.mqtt.publish as paho
import pytest
from parts.bridge import Raw, raw_records, running
from parts.kafka import Kafka
from parts.mosquitto import PERSISTENT, Mosquitto

from connectors.mqtt_bridge.bridge import Bridge
from tpstream.bus.envelope import Kind
from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.mosquitto]


async def say(settings: Settings, bridge: Bridge, broker: Mosquitto, device: str, count: int) -> list[Raw]:
    """Publish a reading, the same each time, once the bridge is there; so many records there are then."""
    async with asyncio.timeout(20):
        while not bridge.way.well:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(paho.single, f"devices/{device}/telemetry", b'{"on":1}', 1, port=broker.port)
        while len(found := await raw_records(settings, device, [Kind.PUBLISH])) < count:
            await asyncio.sleep(0.1)
    return found


@pytest.mark.parametrize("kept", [True, False])
async def test_a_broker_that_comes_back_empty_has_another_session(
    kafka: Kafka, new_mosquitto: Callable[..., Mosquitto], kept: bool
) -> None:
    broker = new_mosquitto(PERSISTENT if kept else "allow_anonymous true\n")
    settings = kafka.settings(bridge_way="broker", broker_url=broker.url, trusted_identity="topic")
    device = f"s-{uuid.uuid4().hex[:8]}"
    async with running(settings) as bridge:
        await say(settings, bridge, broker, device, 1)
        broker.stop()
        async with asyncio.timeout(10):
            while bridge.way.well:
                await asyncio.sleep(0.02)
        broker.start()
        first, second = await say(settings, bridge, broker, device, 2)
    assert (first.header.session == second.header.session) == kept

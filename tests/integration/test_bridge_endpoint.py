"""The endpoint with real clients and a real Kafka-protocol broker."""

from __future__ import annotations

import asyncio
import time

import paho.mqtt.client as paho
import pytest
from parts.bridge import client, raw_records, running
from parts.kafka import Kafka

from tpstream.bus.envelope import Identity, Kind, Refusal, WayIn

VERSIONS = [pytest.param(paho.MQTTv311, id="3.1.1"), pytest.param(paho.MQTTv5, id="5")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1])
async def test_a_publish_becomes_a_raw_record(kafka: Kafka, version: int, qos: int) -> None:
    settings = kafka.settings()
    device = f"raw-{version}-{qos}"
    async with running(settings) as bridge:
        began = time.time_ns() // 1_000_000
        mqtt = await asyncio.to_thread(client, settings, device, version=version)
        sent = mqtt.publish(f"devices/{device}/telemetry", b'{"t":1}', qos=qos)
        await asyncio.to_thread(sent.wait_for_publish, 5)
        mqtt.disconnect()
        await bridge.producer.flush()
        await asyncio.sleep(0.2)
        records = await raw_records(settings, device)
    assert [one.kind for one in records] == [Kind.CONNECTED, Kind.PUBLISH, Kind.DISCONNECTED]
    publish = records[1]
    assert publish.topic == f"devices/{device}/telemetry"
    assert publish.payload == b'{"t":1}'
    assert began <= publish.timestamp <= time.time_ns() // 1_000_000
    assert publish.header.qos == qos
    assert publish.header.packet_id == (sent.mid if qos else 0)
    assert publish.header.way_in is WayIn.ENDPOINT
    assert publish.header.identity is Identity.LOGIN
    assert publish.header.refusal is Refusal.NONE
    assert publish.header.incarnation == bridge.intake.incarnation
    assert len({one.header.session for one in records}) == 1
    assert [one.header.sequence for one in records] == [1, 2, 3]

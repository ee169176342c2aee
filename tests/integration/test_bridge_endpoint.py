"""The endpoint with real clients and a real Kafka-protocol broker."""

from __future__ import annotations

import asyncio
import json
import time

import paho.mqtt.client as paho
import pytest
from parts import mqtt_wire as wire
from parts.bridge import client, pause, raw_records, running, send_downlink
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


@pytest.mark.parametrize("version", [4, 5])
async def test_kafka_away(fresh_kafka: Kafka, version: int) -> None:
    """Nothing is acknowledged, pings are answered, 20 publishes are read and no more; then all goes on."""
    settings = fresh_kafka.settings()
    async with running(settings) as bridge:
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "away", version=version, keep_alive=1))
        assert (await device.answer()).kind == wire.CONNACK
        await bridge.producer.flush()
        await pause(fresh_kafka)
        one_to_20 = [
            wire.publish("devices/away/telemetry", b"%d" % n, packet_id=n, version=version) for n in range(1, 21)
        ]
        device.send(b"".join(one_to_20) + wire.PINGREQ)
        assert (await device.answer()).kind == wire.PINGRESP
        assert await device.silent()
        rest = [wire.publish("devices/away/telemetry", b"%d" % n, packet_id=n, version=version) for n in range(21, 101)]
        device.send(b"".join(rest) + wire.PINGREQ)
        assert await device.silent(3.0)  # longer than its keep-alive, whose clock stands still
        assert bridge.counts.published == 20
        fresh_kafka.go_on()
        answers = await device.answers(101, 15)
        assert [one.packet_id for one in answers if one.kind == wire.PUBACK] == list(range(1, 101))
        assert [one.kind for one in answers].count(wire.PINGRESP) == 1
        records = await raw_records(settings, "away", [Kind.PUBLISH])
        device.close()
    assert [one.payload for one in records] == [b"%d" % n for n in range(1, 101)]
    assert [one.header.packet_id for one in records] == list(range(1, 101))


async def test_the_bound_over_all_connections(fresh_kafka: Kafka) -> None:
    """QoS 1 waits in its socket, QoS 0 is dropped and counted, pings are answered, new devices are asked to wait."""
    settings = fresh_kafka.settings(max_buffered_bytes=5_000)
    async with running(settings) as bridge:
        first = await wire.Socket.open(settings.mqtt_port, wire.connect("1", "first"))
        second = await wire.Socket.open(settings.mqtt_port, wire.connect("2", "second"))
        third = await wire.Socket.open(settings.mqtt_port, wire.connect("3", "third"))
        for one in (first, second, third):
            await one.answer()
        await bridge.producer.flush()
        await pause(fresh_kafka)
        first.send(wire.publish("devices/first/telemetry", b"x" * 5_000, packet_id=1))
        assert await first.silent()
        second.send(wire.publish("devices/second/telemetry", b"held", packet_id=1) + wire.PINGREQ)
        third.send(wire.publish("devices/third/telemetry", b"dropped") + wire.PINGREQ)
        assert (await third.answer()).kind == wire.PINGRESP
        assert await second.silent()
        assert bridge.counts.published == 1
        assert bridge.counts.dropped_qos0 == 1
        refused = await wire.Socket.open(settings.mqtt_port, wire.connect("4", "fourth"))
        assert (await refused.answer()).body[1] == 0x89
        fresh_kafka.go_on()
        assert (await first.answer(15)).kind == wire.PUBACK
        assert [one.kind for one in await second.answers(2, 15)] in (
            [wire.PUBACK, wire.PINGRESP],
            [wire.PINGRESP, wire.PUBACK],
        )
        assert bridge.budget.used == 0
        for one in (first, second, third):
            one.close()


@pytest.mark.parametrize("version", [4, 5])
async def test_take_over(kafka: Kafka, version: int) -> None:
    settings = kafka.settings()
    name = f"taken-{version}"
    async with running(settings):
        old = await wire.Socket.open(settings.mqtt_port, wire.connect("same", name, version=version))
        await old.answer()
        other = await wire.Socket.open(settings.mqtt_port, wire.connect("same", f"{name}-other", version=version))
        await other.answer()
        new = await wire.Socket.open(settings.mqtt_port, wire.connect("same", name, version=version))
        assert (await new.answer()).kind == wire.CONNACK
        goodbye = await old.closed()
        assert [one.body[0] for one in goodbye] == ([0x8E] if version == 5 else [])
        new.send(wire.PINGREQ)
        assert (await new.answer()).kind == wire.PINGRESP
        other.send(wire.PINGREQ)
        assert (await other.answer()).kind == wire.PINGRESP  # the same client id under another login is another
    records = await raw_records(settings, name)
    assert [one.kind for one in records] == [
        Kind.CONNECTED,
        Kind.DISCONNECTED,
        Kind.CONNECTED,
        Kind.DISCONNECTED,
    ]
    assert [json.loads(one.payload)["reason"] for one in records] == [
        "connected",
        "taken over",
        "connected",
        "bridge stops",
    ]
    sessions = [one.header.session for one in records]
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3]


@pytest.mark.parametrize("version", [4, 5])
async def test_nobody_speaks_or_listens_as_another(kafka: Kafka, version: int) -> None:
    settings = kafka.settings()
    me, other = f"me-{version}", f"other-{version}"
    denied = 0x87 if version == 5 else 0x80
    async with running(settings) as bridge:
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", me, version=version))
        await device.answer()
        filters = [(f"devices/command/{me}/+", 2), (f"devices/command/{other}/+", 1), ("#", 0), ("devices/#", 0)]
        device.send(wire.subscribe(1, filters, version=version))
        assert (await device.answer()).body[-4:] == bytes((1, denied, denied, denied))
        device.send(
            wire.publish(f"devices/{other}/telemetry", b"1", packet_id=1, version=version)
            + wire.publish(f"devices/status/{me}", b"1", packet_id=2, version=version)
            + wire.publish("no/such/topic", b"2", packet_id=3, version=version)
            + wire.publish(f"devices/{me}/telemetry", b"3", packet_id=4, version=version)
        )
        answers = {one.packet_id: one.body[2:] for one in await device.answers(4)}
        refused = b"\x87" if version == 5 else b""
        assert answers == {1: refused, 2: refused, 3: b"", 4: b""}
        await bridge.producer.flush()
        device.close()
    assert await raw_records(settings, other) == []
    mine = await raw_records(settings, me, [Kind.PUBLISH, Kind.REFUSED])
    assert [(one.kind, one.header.refusal) for one in mine] == [
        (Kind.REFUSED, Refusal.TOPIC),
        (Kind.PUBLISH, Refusal.NONE),
    ]
    session = mine[0].header.session
    nobodys = [one for one in await raw_records(settings, [""]) if one.header.session == session]
    assert [(one.topic, one.header.refusal) for one in nobodys] == [
        (f"devices/{other}/telemetry", Refusal.IDENTITY),
        (f"devices/status/{me}", Refusal.IDENTITY),
    ]


async def test_without_a_login(kafka: Kafka) -> None:
    """Refused where only logins are trusted; where topics are, it speaks and listens for any number."""
    settings = kafka.settings()
    async with running(settings):
        for version, code in ((4, 5), (5, 0x87)):
            device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", version=version))
            assert (await device.answer()).body[1] == code
            assert await device.closed() == []
    settings = kafka.settings(trusted_identity="login,topic")
    async with running(settings) as bridge:
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c"))
        await device.answer()
        device.send(wire.publish("devices/any-1/telemetry", b"1", packet_id=1))
        await device.answer()
        device.send(wire.subscribe(2, [("devices/command/any-2/+", 0), ("#", 0)]))
        assert (await device.answer()).body[-2:] == b"\0\x87"
        await send_downlink(settings, "any-2", "devices/command/any-2/m1", b"on", "m1")
        got = await device.answer()
        assert got.kind == wire.PUBLISH
        assert got.body.endswith(b"on")
        device.close()
        await asyncio.sleep(0.2)
        await bridge.producer.flush()
        assert [one.kind for one in await raw_records(settings, "any-1")] == [Kind.PUBLISH]
        status = await raw_records(settings, "any-2")
    assert [one.kind for one in status] == [Kind.CONNECTED, Kind.RECEIPT, Kind.DISCONNECTED]
    assert {one.header.identity for one in status} == {Identity.TOPIC}
    assert status[1].header.qos == 0  # written to a QoS 0 subscriber, not acknowledged by it


async def test_too_large_a_packet_ends_at_its_fixed_header(kafka: Kafka) -> None:
    settings = kafka.settings(max_packet=100_000, max_payload=50_000)
    async with running(settings) as bridge:
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "huge"))
        assert b"\x27\x00\x01\x86\xa0" in (await device.answer()).body  # announced
        device.send(b"\x32" + wire.varint(100_001))
        assert [one.body[:1] for one in await device.closed()] == [b"\x95"]
        await asyncio.sleep(0.1)
        assert bridge.counts.disconnected == {"packet too large": 1}
    assert await raw_records(settings, "huge", [Kind.PUBLISH, Kind.REFUSED]) == []


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (wire.publish("devices/rules/telemetry", b"", qos=2, packet_id=1), 0x9B),
        (wire.publish("devices/rules/telemetry", b"", properties=b"\x23\0\x01"), 0x94),
        (wire.publish("devices/+/telemetry", b""), 0x90),
        (wire.connect("c", "rules"), 0x82),
        (b"\xf0\0", 0x82),
        (wire.publish(b"\xff\xfe", b""), 0x81),
    ],
)
async def test_who_breaks_the_protocol_is_told_why(kafka: Kafka, sent: bytes, reason: int) -> None:
    settings = kafka.settings()
    async with running(settings):
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "rules"))
        await device.answer()
        device.send(sent)
        assert [one.body[:1] for one in await device.closed()] == [bytes((reason,))]


async def test_keep_alive(kafka: Kafka) -> None:
    settings = kafka.settings()
    async with running(settings):
        began = time.monotonic()
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "silent", keep_alive=1))
        await device.answer()
        assert [one.body[:1] for one in await device.closed(6)] == [b"\x8d"]
        assert 1.4 < time.monotonic() - began < 4


async def test_what_went_down_before_the_bridge_was_there_is_not_sent(kafka: Kafka) -> None:
    settings = kafka.settings()
    for n in range(5):
        await send_downlink(settings, "early", f"devices/command/early/m{n}", b"old", f"m{n}")
    async with running(settings):
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "early"))
        device.send(wire.subscribe(1, [("devices/command/early/+", 1)]))
        assert [one.kind for one in await device.answers(2)] == [wire.CONNACK, wire.SUBACK]
        assert await device.silent()
        await send_downlink(settings, "early", "devices/command/early/m9", b"new", "m9")
        assert (await device.answer()).body.endswith(b"new")
        device.close()


async def test_downlink_in_flight_is_bounded_by_the_client(kafka: Kafka) -> None:
    settings = kafka.settings()
    async with running(settings):
        two = b"\x21\x00\x02"  # its receive maximum
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "slow", properties=two))
        device.send(wire.subscribe(1, [("devices/command/slow/+", 1)]))
        await device.answers(2)
        for n in range(5):
            await send_downlink(settings, "slow", f"devices/command/slow/m{n}", b"%d" % n, f"m{n}")
        first, _ = await device.answers(2)
        assert await device.silent()
        topic_length = int.from_bytes(first.body[:2], "big")
        packet_id = int.from_bytes(first.body[2 + topic_length : 4 + topic_length], "big")
        device.send(wire.puback(packet_id))
        third = await device.answer()
        assert third.body.endswith(b"2")
        assert await device.silent()
        device.close()
    receipts = await raw_records(settings, "slow", [Kind.RECEIPT])
    assert [one.headers["message_id"] for one in receipts] == [b"m0"]

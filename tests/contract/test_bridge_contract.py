"""What both ways into the bridge promise: the same cases, with real clients and real brokers.

A device speaks to the endpoint itself, or to a mosquitto that the bridge is a client of.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import aiokafka
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from parts.bridge import Raw, client, pause, raw_records, running
from parts.kafka import Kafka
from parts.mosquitto import Mosquitto, program

from connectors.mqtt_bridge.bridge import Bridge
from tpstream.bus import topics
from tpstream.bus.envelope import Identity, Kind, Refusal, WayIn
from tpstream.bus.partitioner import partition_of
from tpstream.settings import Settings

VERSIONS = [pytest.param(paho.MQTTv311, id="3.1.1"), pytest.param(paho.MQTTv5, id="5")]


@dataclass
class Setup:
    """A bridge with a way in, and where devices connect."""

    bridge: Bridge
    settings: Settings
    port: int
    way_in: WayIn

    def connect(self, device: str, version: int = paho.MQTTv5, **more: Any) -> paho.Client:
        return client(self.settings, device, version=version, port=self.port, **more)

    async def records(self, device: str, *kinds: Kind) -> list[Raw]:
        await self.bridge.producer.flush()
        return await raw_records(self.settings, device, kinds or (Kind.PUBLISH, Kind.REFUSED))

    async def until(self, device: str, count: int, *kinds: Kind) -> list[Raw]:
        """The device's records, once there are as many."""
        for _ in range(50):
            found = await self.records(device, *kinds)
            if len(found) >= count:
                break
            await asyncio.sleep(0.1)
        return found


@pytest.fixture(params=["endpoint", "broker"])
async def setup(
    request: pytest.FixtureRequest, kafka: Kafka, new_mosquitto_or_none: Callable[[], Mosquitto | None]
) -> AsyncIterator[Setup]:
    if request.param == "endpoint":
        settings = kafka.settings()
        async with running(settings) as bridge:
            yield Setup(bridge, settings, settings.mqtt_port, WayIn.ENDPOINT)
        return
    broker = new_mosquitto_or_none()
    assert broker is not None
    settings = kafka.settings(bridge_way="broker", broker_url=broker.url, trusted_identity="topic")
    async with running(settings) as bridge:
        for _ in range(100):
            if bridge.way.well:
                break
            await asyncio.sleep(0.05)
        yield Setup(bridge, settings, broker.port, WayIn.BROKER)


@pytest.fixture
def new_mosquitto_or_none(request: pytest.FixtureRequest) -> Callable[[], Mosquitto | None]:
    """Makes a mosquitto when asked, so that the endpoint's cases run where there is none."""
    return lambda: request.getfixturevalue("new_mosquitto")()  # type: ignore[no-any-return]


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("version", VERSIONS)
async def test_a_publish_becomes_a_record_of_its_device(setup: Setup, version: int, qos: int) -> None:
    device = f"c-{setup.way_in}-{version}-{qos}"
    mqtt = await asyncio.to_thread(setup.connect, device, version)
    for n in range(20):
        sent = mqtt.publish(f"devices/{device}/telemetry", b'{"n":%d}' % n, qos=qos)
    await asyncio.to_thread(sent.wait_for_publish, 5)
    records = await setup.until(device, 20)
    mqtt.disconnect()
    assert [one.payload for one in records] == [b'{"n":%d}' % n for n in range(20)]
    assert {one.topic for one in records} == {f"devices/{device}/telemetry"}
    assert {one.partition for one in records} == {partition_of(device.encode(), setup.settings.partitions)}
    assert {one.header.way_in for one in records} == {setup.way_in}
    assert {one.header.qos for one in records} == {qos}
    wanted = Identity.LOGIN if setup.way_in is WayIn.ENDPOINT else Identity.TOPIC
    assert {one.header.identity for one in records} == {wanted}
    sequences = [one.header.sequence for one in records]
    assert sequences == sorted(set(sequences))


async def test_mosquitto_pub_gets_through(setup: Setup) -> None:
    device = f"pub-{setup.way_in}"
    command = [program("mosquitto_pub"), "-p", str(setup.port), "-u", device, "-q", "1"]
    for version in ("mqttv311", "mqttv5"):
        more = ["-V", version, "-t", f"devices/{device}/telemetry", "-m", version]
        done = await asyncio.to_thread(subprocess.run, [*command, *more], timeout=10, check=False)
        assert done.returncode == 0
    records = await setup.until(device, 2)
    assert [one.payload for one in records] == [b"mqttv311", b"mqttv5"]


async def test_content_type_and_user_properties_are_headers(setup: Setup) -> None:
    device = f"properties-{setup.way_in}"
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.UserProperty = [("trace", "1"), ("spur", "ü")]
    mqtt = await asyncio.to_thread(setup.connect, device)
    sent = mqtt.publish(f"devices/{device}/telemetry", b"{}", qos=1, properties=properties)
    await asyncio.to_thread(sent.wait_for_publish, 5)
    (record,) = await setup.until(device, 1)
    mqtt.disconnect()
    assert record.headers["mqtt-content-type"] == b"application/json"
    assert record.headers["mqtt-user-trace"] == b"1"
    assert record.headers["mqtt-user-spur"] == "ü".encode()


async def test_a_payload_that_is_too_large_is_kept_in_part(setup: Setup) -> None:
    device = f"size-{setup.way_in}"
    mqtt = await asyncio.to_thread(setup.connect, device)
    whole = bytes(range(256)) * 10_000
    sent = mqtt.publish(f"devices/{device}/telemetry", whole, qos=1)
    await asyncio.to_thread(sent.wait_for_publish, 10)
    assert sent.is_published()
    sent = mqtt.publish(f"devices/{device}/telemetry", b"next", qos=1)
    await asyncio.to_thread(sent.wait_for_publish, 5)
    first, second = await setup.until(device, 2)
    mqtt.disconnect()
    assert (first.kind, first.header.refusal) == (Kind.REFUSED, Refusal.SIZE)
    assert first.payload == whole[: 64 * 1024]
    assert first.headers["tp-size"].split()[0] == b"2560000"
    assert (second.kind, second.payload) == (Kind.PUBLISH, b"next")


async def test_a_downlink_reaches_the_device_and_a_receipt_the_raw_topic(setup: Setup) -> None:
    device = f"down-{setup.way_in}"
    topic = f"devices/command/{device}/m-1"
    got: asyncio.Queue[paho.MQTTMessage] = asyncio.Queue()
    subscribed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def prepare(made: paho.Client) -> None:
        made.on_message = lambda _, __, message: loop.call_soon_threadsafe(got.put_nowait, message)
        made.on_subscribe = lambda *_: loop.call_soon_threadsafe(subscribed.set)
        made.on_connect = lambda *_: made.subscribe(f"devices/command/{device}/+", 1)

    mqtt = await asyncio.to_thread(setup.connect, device, prepare=prepare)
    async with asyncio.timeout(5):
        await subscribed.wait()
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=setup.settings.bootstrap)
    await producer.start()
    await producer.send_and_wait(
        topics.downlink_mqtt.name,
        b'{"method":"reboot"}',
        key=device.encode(),
        partition=partition_of(device.encode(), setup.settings.partitions),
        headers=[("topic", topic.encode()), ("message_id", b"m-1")],
    )
    await producer.stop()
    async with asyncio.timeout(5):
        message = await got.get()
    assert (message.topic, message.payload, message.qos) == (topic, b'{"method":"reboot"}', 1)
    (receipt,) = await setup.until(device, 1, Kind.RECEIPT)
    mqtt.disconnect()
    assert receipt.headers["message_id"] == b"m-1"
    assert receipt.header.way_in is setup.way_in
    assert receipt.header.qos == 1
    assert receipt.payload == b""


async def test_while_kafka_is_away_nothing_is_acknowledged_and_nothing_is_lost(
    fresh_kafka: Kafka, new_mosquitto: Callable[[], Mosquitto]
) -> None:
    """The way in `broker`; the endpoint's own case is in tests/integration."""
    broker = new_mosquitto()
    settings = fresh_kafka.settings(bridge_way="broker", broker_url=broker.url, trusted_identity="topic")
    async with running(settings) as bridge:
        while not bridge.way.well:
            await asyncio.sleep(0.05)
        await pause(fresh_kafka)
        mqtt = await asyncio.to_thread(client, settings, "away", port=broker.port)
        for n in range(3_000):
            sent = mqtt.publish("devices/away/telemetry", b"%d" % n, qos=1)
        await asyncio.to_thread(sent.wait_for_publish, 10)
        await asyncio.sleep(0.3)
        assert bridge.counts.published == 1_000  # the receive maximum; mosquitto keeps the rest
        assert bridge.counts.acknowledged == 0
        fresh_kafka.go_on()
        for _ in range(100):
            if bridge.counts.acknowledged >= 3_000:
                break
            await asyncio.sleep(0.1)
        records = await raw_records(settings, "away")
    mqtt.disconnect()
    assert [one.payload for one in records] == [b"%d" % n for n in range(3_000)]


async def test_the_bridge_waits_for_a_broker_that_is_not_there_yet(
    kafka: Kafka, new_mosquitto: Callable[[], Mosquitto], caplog: pytest.LogCaptureFixture
) -> None:
    broker = new_mosquitto()
    broker.stop()
    settings = kafka.settings(bridge_way="broker", broker_url=broker.url, trusted_identity="topic")
    async with running(settings) as bridge:
        await asyncio.sleep(1)
        assert not bridge.way.well
        assert len([one for one in caplog.records if "waiting for it" in one.message]) == 1
        broker.start()
        async with asyncio.timeout(10):
            while not bridge.way.well:
                await asyncio.sleep(0.05)
        mqtt = await asyncio.to_thread(client, settings, "late", port=broker.port)
        mqtt.publish("devices/late/telemetry", b"1", qos=1).wait_for_publish(5)
        async with asyncio.timeout(5):
            while bridge.counts.acknowledged < 1:
                await asyncio.sleep(0.05)
        mqtt.disconnect()


async def test_what_came_while_the_bridge_was_away_is_taken_when_it_is_back(
    kafka: Kafka, new_mosquitto: Callable[[], Mosquitto]
) -> None:
    broker = new_mosquitto()
    settings = kafka.settings(bridge_way="broker", broker_url=broker.url, trusted_identity="topic")
    async with running(settings) as bridge:
        while not bridge.way.well:
            await asyncio.sleep(0.05)
    mqtt = await asyncio.to_thread(client, settings, "slept", port=broker.port)
    for n in range(500):
        sent = mqtt.publish("devices/slept/telemetry", b"%d" % n, qos=1)
    await asyncio.to_thread(sent.wait_for_publish, 5)
    mqtt.disconnect()
    async with running(settings) as bridge, asyncio.timeout(10):
        while bridge.counts.acknowledged < 500:
            await asyncio.sleep(0.05)
        records = await raw_records(settings, "slept")
    assert [one.payload for one in records] == [b"%d" % n for n in range(500)]

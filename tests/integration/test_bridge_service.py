"""The bridge as a process and as a part of `tpstream up`: start, hold, a new life, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import aiohttp
import paho.mqtt.client as paho
import pytest
from parts import mqtt_wire as wire
from parts.bridge import client, pause, raw_records, running, send_downlink
from parts.kafka import Kafka

from connectors.mqtt_bridge.bridge import Bridge
from tpstream.bus.envelope import Kind
from tpstream.embedded.child import die_with_parent
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

RUN = "from connectors.mqtt_bridge.service import main; from tpstream.settings import Settings; main(Settings.load())"


def start_process(settings: Settings) -> subprocess.Popen[bytes]:
    """The bridge as a process, once it takes devices."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN],
        env={**os.environ, **settings.environ()},
        preexec_fn=die_with_parent(os.getpid()),
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", settings.mqtt_port), 1):
                return process
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the bridge did not start: {process.stderr and process.stderr.read()!r}")


class Load:
    """Devices that publish numbers, QoS 1, as fast as they are acknowledged, and note what was."""

    def __init__(self, settings: Settings, devices: int, version: int) -> None:
        self.acknowledged: set[tuple[str, int]] = set()
        self._sent: dict[tuple[str, int], tuple[str, int]] = {}
        self._stop = threading.Event()
        self._clients = [
            client(settings, f"load-{version}-{n}", version=version, prepare=self._prepare) for n in range(devices)
        ]
        self._threads = [threading.Thread(target=self._publish, args=(one,), daemon=True) for one in self._clients]
        for thread in self._threads:
            thread.start()

    def _prepare(self, made: paho.Client) -> None:
        made.reconnect_delay_set(60, 120)
        made.user_data_set({})

        def published(_: object, sent: dict[int, tuple[str, int]], mid: int, reason: object, __: object) -> None:
            if mid in sent:
                self.acknowledged.add(sent.pop(mid))

        made.on_publish = published

    def _publish(self, one: paho.Client) -> None:
        device = one.username or ""
        sent = one.user_data_get()
        n = 0
        while not self._stop.is_set():
            if len(sent) < 20 and one.is_connected():
                n += 1
                mid = (one._last_mid % 65_535) + 1  # paho may call back before publish() returns
                sent[mid] = (device, n)
                assert one.publish(f"devices/{device}/telemetry", b"%d" % n, qos=1).mid == mid
            else:
                time.sleep(0.001)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2)
        for one in self._clients:
            one.loop_stop()


@pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5])
async def test_orderly_stop_under_load(kafka: Kafka, version: int) -> None:
    """Everything that was acknowledged is in Kafka, everything that was read is acknowledged, done within 5 s."""
    settings = kafka.settings()
    process = await asyncio.to_thread(start_process, settings)
    load = await asyncio.to_thread(Load, settings, 10, version)
    await asyncio.sleep(2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 10) == 0
    assert time.monotonic() - began < 5
    await asyncio.sleep(0.5)
    await asyncio.to_thread(load.stop)
    records = await raw_records(settings, [f"load-{version}-{n}" for n in range(10)])
    stored = {(one.device, int(one.payload)) for one in records if one.kind is Kind.PUBLISH}
    assert len(load.acknowledged) > 500
    assert load.acknowledged - stored == set()
    assert stored - load.acknowledged == set()
    assert len([one for one in records if one.kind is Kind.DISCONNECTED]) == 10


async def test_acknowledgements_arrive_although_more_lies_unread_when_the_bridge_stops(fresh_kafka: Kafka) -> None:
    """Closing a socket with unread bytes in it resets it, and a reset destroys what is still on its way."""
    settings = fresh_kafka.settings()
    async with running(settings) as bridge:
        with socket.create_connection(("127.0.0.1", settings.mqtt_port)) as device:
            device.sendall(wire.connect("c", "unread"))
            await asyncio.sleep(0.3)
            await pause(fresh_kafka)
            flood = [wire.publish("devices/unread/telemetry", b"x" * 900, packet_id=n) for n in range(1, 400)]
            device.sendall(b"".join(flood))
            async with asyncio.timeout(5):
                while bridge.counts.published < 20:
                    await asyncio.sleep(0.01)
            stopping = asyncio.create_task(bridge.stop())
            await asyncio.sleep(0.2)
            fresh_kafka.go_on()
            await stopping
            device.settimeout(5)
            data = b""
            while piece := await asyncio.to_thread(device.recv, 65_536):
                data += piece
    answers, left = wire.split(data)
    assert not left
    assert [one.packet_id for one in answers if one.kind == wire.PUBACK] == list(range(1, 21))
    assert (answers[-1].kind, answers[-1].body) == (wire.DISCONNECT, b"\x8b")


async def test_stop_while_kafka_is_away_ends_too_and_acknowledges_nothing(fresh_kafka: Kafka) -> None:
    settings = fresh_kafka.settings()
    process = await asyncio.to_thread(start_process, settings)
    device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "left"))
    await device.answer()
    await asyncio.sleep(0.3)
    await pause(fresh_kafka)
    device.send(wire.publish("devices/left/telemetry", b"1", packet_id=1))
    assert await device.silent()
    process.send_signal(signal.SIGTERM)
    assert [(one.kind, one.body[:1]) for one in await device.closed(5)] == [(wire.DISCONNECT, b"\x8b")]
    assert await asyncio.to_thread(process.wait, 5) == 0


async def test_waits_for_kafka_and_listens_when_the_topics_are_there(fresh_kafka: Kafka) -> None:
    settings = fresh_kafka.settings()
    fresh_kafka.kill()
    bridge = Bridge(settings)
    starting = asyncio.create_task(bridge.start())
    async with aiohttp.ClientSession() as web:
        await asyncio.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):
            await wire.Socket.open(settings.mqtt_port)
        async with web.get(f"http://127.0.0.1:{settings.bridge_web_port}/health") as answer:
            assert answer.status == 503
            assert "waiting for Kafka" in (await answer.json())["kafka"]["detail"]
        await asyncio.to_thread(fresh_kafka.start)
        async with asyncio.timeout(15):
            await starting
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "patient"))
        assert (await device.answer()).kind == wire.CONNACK
        device.close()
        async with web.get(f"http://127.0.0.1:{settings.bridge_web_port}/health") as answer:
            assert answer.status == 200
        async with web.get(f"http://127.0.0.1:{settings.bridge_web_port}/metrics") as answer:
            assert "tpstream_bridge_connected_total 1.0" in await answer.text()
    await bridge.stop()


@pytest.mark.parametrize("setting", ["mqtt_port", "bridge_web_port"])
async def test_a_taken_port_is_one_line_that_names_it(kafka: Kafka, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        bridge = Bridge(kafka.settings(**{setting: port}))
        with pytest.raises(ConfigurationError) as error:
            await bridge.start()
        await bridge.stop()
    assert str(port) in str(error.value)
    assert f"TPSTREAM_{setting.upper()}" in str(error.value)
    assert "\n" not in str(error.value)


async def test_hold_new_life_release(fresh_kafka: Kafka) -> None:
    """What `tpstream up` does when it begins a new life of the embedded broker: devices notice nothing."""
    settings = fresh_kafka.settings()
    base = f"http://127.0.0.1:{settings.bridge_web_port}"
    async with running(settings) as bridge, aiohttp.ClientSession() as web:
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "held"))
        device.send(wire.subscribe(1, [("devices/command/held/+", 1)]))
        await device.answers(2)
        await send_downlink(settings, "held", "devices/command/held/m0", b"old", "m0")
        assert (await device.answer()).body.endswith(b"old")
        async with web.post(f"{base}/hold", headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403
        device.send(b"".join(wire.publish("devices/held/telemetry", b"%d" % n, packet_id=n) for n in range(1, 11)))
        async with web.post(f"{base}/hold") as answer:
            assert (answer.status, await answer.json()) == (200, {"held": True})
        assert bridge.producer.unacknowledged == 0
        before = [one.payload for one in await raw_records(settings, "held", [Kind.PUBLISH])]
        acknowledged = len(before)
        if acknowledged:
            assert [one.packet_id for one in await device.answers(acknowledged)] == list(range(1, acknowledged + 1))
        device.send(wire.publish("devices/held/telemetry", b"later", packet_id=100) + wire.PINGREQ)
        guest = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "guest"))
        assert await device.silent()
        assert await guest.silent()
        await asyncio.to_thread(fresh_kafka.restart)
        async with web.post(f"{base}/release") as answer:
            assert (answer.status, await answer.json()) == (200, {"held": False})
        answers = await device.answers(10 - acknowledged + 2, 15)
        assert sorted(one.kind for one in answers)[-1] == wire.PINGRESP
        assert (await guest.answer()).kind == wire.CONNACK
        after = [one.payload for one in await raw_records(settings, "held", [Kind.PUBLISH])]
        assert before + after == [b"%d" % n for n in range(1, 11)] + [b"later"]
        async with asyncio.timeout(10):
            await send_downlink(settings, "held", "devices/command/held/m1", b"new", "m1")
            assert (await device.answer(10)).body.endswith(b"new")
        assert await device.silent()
        device.close()
        guest.close()


async def test_a_hold_that_was_given_up_holds_nothing_later(fresh_kafka: Kafka) -> None:
    settings = fresh_kafka.settings()
    async with running(settings) as bridge:
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "patience"))
        await device.answer()
        await bridge.producer.flush()
        await pause(fresh_kafka)
        device.send(wire.publish("devices/patience/telemetry", b"1", packet_id=1))
        assert await device.silent()
        holding = asyncio.create_task(bridge.hold())
        await asyncio.sleep(0.1)
        await bridge.release()
        fresh_kafka.go_on()
        await holding
        assert (await device.answer(15)).kind == wire.PUBACK
        device.close()
        await asyncio.sleep(0.3)
        await bridge.producer.flush()
        records = await raw_records(settings, "patience")
    assert [one.kind for one in records] == [Kind.CONNECTED, Kind.PUBLISH, Kind.DISCONNECTED]


async def test_a_restart_of_kafka_without_notice(fresh_kafka: Kafka) -> None:
    """Publishes go on, and downlinks of the new life arrive from its beginning."""
    settings = fresh_kafka.settings()
    async with running(settings):
        device = await wire.Socket.open(settings.mqtt_port, wire.connect("c", "life"))
        device.send(wire.subscribe(1, [("devices/command/life/+", 0)]))
        await device.answers(2)
        for n in range(10):
            await send_downlink(settings, "life", f"devices/command/life/m{n}", b"old")
        await device.answers(10)
        await asyncio.to_thread(fresh_kafka.restart)
        for n in range(12):  # the new partition is longer than the old one when the bridge looks
            await send_downlink(settings, "life", f"devices/command/life/n{n}", b"%d" % n)
        got = await device.answers(12, 15)
        assert [one.body.rpartition(b"\0")[2] for one in got] == [b"%d" % n for n in range(12)]
        device.send(wire.publish("devices/life/telemetry", b"1", packet_id=1))
        assert (await device.answer(15)).kind == wire.PUBACK
        device.close()

"""A part that does not answer for a while: the others wait or go on, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
import psutil
import pytest
from parts.device import Device
from parts.fleet import Fleet, whole
from parts.mqtt_wire import PINGREQ, PINGRESP, connect, split
from parts.whole import Platform, started

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

MB = 1_000_000
STORE_AWAY = 20.0
KAFKA_AWAY = 8.0


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with started(tmp_path_factory.mktemp("away")) as one:
        yield one


@contextmanager
def paused(process: psutil.Process) -> Iterator[None]:
    """SIGSTOP: its connections stay open, nothing is answered."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def unwell(platform: Platform) -> dict[str, Any]:
    """The parts that /health shows red, with what it says of them."""
    status, report = platform.api("GET", "/health")
    red = {name: part["detail"] for name, part in report.items() if isinstance(part, dict) and not part["ok"]}
    assert status == (503 if red else 200)
    return red


def test_the_store_is_away(running: Platform) -> None:
    """Its own writer waits, in bounded memory; alarms and commands do not; then all is stored once."""
    fleet = Fleet(running, 50, 500, protocol=mqtt.MQTTv5, pause=0.1, prefix="load")
    device = Device(running, "house-1")
    fleet.start()
    running.wait(lambda: len(fleet.ledger.acknowledged) > 1_500)
    writer = running.part("worker-store")
    before, acknowledged = writer.memory_info().rss, len(fleet.ledger.acknowledged)
    with paused(running.part("store")):
        until = time.monotonic() + STORE_AWAY
        id = running.command(device.number, "fan", params={"on": True})
        began = time.monotonic()
        running.wait(lambda: device.commands, 5)
        assert time.monotonic() - began < 2
        running.wait(lambda: "store" in unwell(running), 15)
        peak = 0
        while time.monotonic() < until:
            peak = max(peak, writer.memory_info().rss)
            time.sleep(0.5)
        taken = len(fleet.ledger.acknowledged) - acknowledged
        assert taken > STORE_AWAY * 300, "devices do not notice"
        assert peak - before < 50 * MB, f"worker-store grew by {(peak - before) / MB:.0f} MB"
    running.wait(lambda: unwell(running) == {}, 20)
    assert running.ended(id)["state"] == "SUCCEEDED"
    assert writer.is_running(), "it was not started anew"
    fleet.enough()
    fleet.join()
    whole(running, fleet)
    device.close()
    assert "died" not in running.output.read_text()


def test_kafka_is_away(running: Platform) -> None:
    """Nothing is acknowledged meanwhile, pings are; then all goes on, and the ledger is whole."""
    fleet = Fleet(running, 50, 200, protocol=mqtt.MQTTv311, pause=0.05)
    fleet.start()
    running.wait(lambda: len(fleet.ledger.acknowledged) > 1_500)
    with paused(running.part("kafka")):
        time.sleep(0.5)  # what was on its way
        acknowledged = len(fleet.ledger.acknowledged)
        answered = asyncio.run(pings(running, KAFKA_AWAY - 0.5))
        assert len(fleet.ledger.acknowledged) == acknowledged
        assert len(answered) >= KAFKA_AWAY - 1
        assert max(answered) < 1.0, answered
        assert "kafka" in unwell(running)
    fleet.join()
    assert len(fleet.ledger.acknowledged) == 10_000
    whole(running, fleet, 60)
    running.wait(lambda: unwell(running) == {}, 20)
    assert "died" not in running.output.read_text()


async def pings(platform: Platform, seconds: float) -> list[float]:
    """Ping twice a second; how long each answer took, s."""
    reader, writer = await asyncio.open_connection(platform.settings.host, platform.settings.mqtt_port)
    writer.write(connect("pings", version=4))
    await asyncio.wait_for(reader.read(100), 5)
    took = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        writer.write(PINGREQ)
        answers, rest = split(await asyncio.wait_for(reader.read(100), 5))
        assert [answer.kind for answer in answers] == [PINGRESP]
        assert rest == b""
        took.append(time.monotonic() - began)
        await asyncio.sleep(0.5)
    writer.close()
    return took

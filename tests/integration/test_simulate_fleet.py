"""The simulated fleet on a real broker: it reports, obeys, comes back, and stops in order."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiomqtt
import pytest
from parts.mosquitto import Mosquitto

pytestmark = pytest.mark.mosquitto


async def test_a_fleet_reports_obeys_and_survives_its_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        arguments = ["simulate", "--devices", "3", "--interval", "0.1", "--port", str(mosquitto.port)]
        fleet = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tpstream", *arguments, stdout=file, stderr=file
        )
    async with asyncio.timeout(40):
        await _said(log, "3 simulated devices connected", 1)
        async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
            await client.subscribe("devices/+/telemetry", qos=1)
            await client.subscribe("devices/+/command/response/+", qos=1)
            await client.publish("devices/command/greenhouse-bin-1/a1", b"\x01\x01", qos=1)
            await client.publish("devices/command/greenhouse-1/b2", b'{"method":"fan","params":{"on":true}}', qos=1)
            await client.publish("devices/command/greenhouse-2/c3", b'{"method":"dance"}', qos=1)
            answers: dict[str, int] = {}
            lengths: dict[str, int] = {}
            fans: set[str] = set()
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                topic = str(message.topic).split("/")
                if topic[2] == "command":
                    answers["/".join((topic[1], topic[-1]))] = json.loads(message.payload)["result"]
                elif topic[1] == "greenhouse-bin-1":
                    lengths[topic[1]] = len(message.payload)
                elif json.loads(message.payload)["values"]["fan"]:
                    fans.add(topic[1])
                if len(answers) == 3 and lengths and fans:
                    break
        assert answers == {"greenhouse-bin-1/a1": 0, "greenhouse-1/b2": 0, "greenhouse-2/c3": 1}
        assert lengths == {"greenhouse-bin-1": 6}
        assert fans == {"greenhouse-1"}
        await asyncio.to_thread(mosquitto.stop)
        await _said(log, "no connection to MQTT", 1)
        await asyncio.to_thread(mosquitto.start)
        await _said(log, "3 simulated devices connected", 2)
        fleet.send_signal(signal.SIGTERM)
        assert await fleet.wait() == 0
    assert _count(log, "\n") == 5  # two fans, and three lines on the connection


async def _said(log: Path, text: str, times: int) -> None:
    while _count(log, text) < times:
        await asyncio.sleep(0.05)


def _count(log: Path, text: str) -> int:
    return log.read_text().count(text)

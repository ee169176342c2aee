"""The bridge's other way in: behind a mosquitto that is already there, with all the other parts of the platform."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import paho.mqtt.client as mqtt
import pytest
from parts.device import Device
from parts.fleet import Fleet, whole
from parts.mosquitto import Mosquitto, program
from parts.whole import GREENHOUSE, Platform

pytestmark = [pytest.mark.kafka, pytest.mark.mosquitto, pytest.mark.slow]


def test_up_and_down_through_a_broker(platform: Callable[..., Platform], mosquitto: Mosquitto) -> None:
    running = platform("--app", str(GREENHOUSE), bridge_way="broker", broker_url=mosquitto.url)
    fleet = Fleet(running, 20, 100, protocol=mqtt.MQTTv5, pause=0.01, port=mosquitto.port)
    fleet.start()
    device = Device(running, "greenhouse-bin-3", port=mosquitto.port)
    id = running.command(device.number, "fan", params={"on": True})
    assert running.ended(id)["state"] == "SUCCEEDED", "meanwhile"
    (command,) = device.commands
    assert (command.topic, command.payload) == (f"devices/command/greenhouse-bin-3/{id}", b"\x01\x01")
    assert (command.qos, command.retained) == (1, False)
    running.wait(lambda: len(fleet.ledger.acknowledged) > 500)
    running.restart_part("bridge")
    fleet.join()
    whole(running, fleet)
    assert len(fleet.ledger.acknowledged) == 2_000

    line = [program("mosquitto_pub"), "-p", str(mosquitto.port), "-q", "1", "-t", "devices/shell-1/telemetry"]
    subprocess.run([*line, "-m", '{"temperature":21.5}'], check=True, timeout=10)
    shown = "SELECT key, number FROM telemetry WHERE device = 'shell-1'"
    running.wait(lambda: running.rows(shown) == [("temperature", 21.5)])

    silent = Device(running, "silent-1", port=mosquitto.port, answer=lambda command: None)
    ended = running.ended(running.command("silent-1", "reboot", attempts=1, timeout=1))
    assert ended["state"] == "TIMED_OUT"
    assert len(silent.commands) == 1
    silent.close()

    mosquitto.stop()
    again = running.command(device.number, "fan", params={"on": False}, timeout=2)
    mosquitto.start()
    assert running.ended(again)["state"] == "SUCCEEDED", "sent again, should the device not have been back at first"
    assert device.commands[-1].payload == b"\x01\x00"
    device.close()
    assert running.stop() == 0

"""Compose's mosquitto configuration, in a real mosquitto: logins, the ACL, and nothing dropped for an absent bridge."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

pytestmark = pytest.mark.mosquitto

DEPLOY = Path(__file__).parents[2] / "deploy/mosquitto"
MESSAGES = 1_500


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[int]:
    """mosquitto with the compose stack's files, only port and folders changed; its port."""
    if shutil.which("mosquitto") is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("needs mosquitto: Debian package mosquitto")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    data = tmp_path / "data"
    data.mkdir()
    text = (DEPLOY / "mosquitto.conf").read_text()
    text = text.replace("listener 1883", f"listener {port} 127.0.0.1").replace("/mosquitto/data/", f"{data}/")
    text = text.replace("/mosquitto/config/acl", str(DEPLOY / "acl"))
    if os.getuid() == 0:
        text += "\nuser root\n"
    (tmp_path / "mosquitto.conf").write_text(text)
    passwords = data / "passwords"
    passwords.touch()
    for number in ("d1", "d2"):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), number, number], check=True)
    environ = {
        **os.environ,
        "MOSQUITTO_CONFIG": str(tmp_path / "mosquitto.conf"),
        "MOSQUITTO_PASSWORDS": str(passwords),
        "TPSTREAM_BRIDGE_PASSWORD": "secret",
    }
    # Its last step hands the files to mosquitto's user; here the process stays who it is.
    script = (DEPLOY / "start.sh").read_text().replace('"$(id -u)" = 0', "x = y")
    process = subprocess.Popen(["sh", "-c", script], env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = time.monotonic() + 10
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            break
        except OSError:
            time.sleep(0.05)
    else:
        process.kill()
        raise AssertionError(f"mosquitto did not start: {process.communicate()[0]!r}")
    yield port
    process.terminate()
    process.communicate(timeout=10)


class Client:
    """A paho client whose messages are kept."""

    def __init__(self, port: int, user: str, password: str, *, session: str = "", v5: bool = True) -> None:
        self.messages: list[mqtt.MQTTMessage] = []
        self.connected: list[Any] = []
        protocol = mqtt.MQTTv5 if v5 else mqtt.MQTTv311
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=session, protocol=protocol)
        self._client.max_queued_messages_set(0)
        self._client.max_inflight_messages_set(1000)
        self._client.username_pw_set(user, password)
        self._client.on_connect = lambda *a: self.connected.append(a[3])
        self._client.on_message = lambda *a: self.messages.append(a[2])
        if v5:
            properties = mqtt.Properties(mqtt.PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if session else 0
            self._client.connect("127.0.0.1", port, clean_start=not session, properties=properties)
        else:
            self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.until(lambda: bool(self.connected))

    def until(self, true: Any, seconds: float = 10.0) -> bool:
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            time.sleep(0.01)
        return bool(true())

    def subscribe(self, *filters: str) -> None:
        done: list[int] = []
        self._client.on_subscribe = lambda *a: done.append(a[2])
        for one in filters:
            self._client.subscribe(one, qos=1)
        assert self.until(lambda: len(done) == len(filters))

    def publish(self, topic: str, payload: bytes | str) -> mqtt.MQTTMessageInfo:
        return self._client.publish(topic, payload, qos=1)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_nobody_without_a_login(broker: int) -> None:
    for user, password in (("", ""), ("d1", "wrong"), ("stranger", "x")):
        client = Client(broker, user, password)
        assert client.connected[0].is_failure
        client.stop()


@pytest.mark.parametrize("v5", [False, True])
def test_a_device_speaks_as_itself_and_hears_only_its_own(broker: int, v5: bool) -> None:
    bridge = Client(broker, "tpstream-bridge", "secret")
    bridge.subscribe("devices/+/telemetry", "devices/+/command/response/+", "devices/status/+")
    d1, d2 = Client(broker, "d1", "d1", v5=v5), Client(broker, "d2", "d2", v5=v5)
    d1.subscribe("devices/command/d1/+", "devices/command/d2/+", "devices/+/telemetry", "#")
    d2.subscribe("devices/command/d2/+")

    d1.publish("devices/d2/telemetry", "forged")
    d1.publish("devices/status/d1", "1")
    d1.publish("devices/command/d2/m1", "forged")
    d1.publish("devices/d1/telemetry", "own")
    d1.publish("devices/d1/command/response/m0", "answer")
    assert bridge.until(lambda: len(bridge.messages) >= 2)
    bridge.publish("devices/command/d1/m2", "for d1")
    bridge.publish("devices/command/d2/m3", "for d2")
    assert d1.until(lambda: d1.messages)
    assert d2.until(lambda: d2.messages)
    time.sleep(0.3)  # what must not come would have come

    assert [m.topic for m in bridge.messages] == ["devices/d1/telemetry", "devices/d1/command/response/m0"]
    assert {m.payload for m in d1.messages} == {b"for d1"}  # once for each of its filters that match
    assert len(d1.connected) == 1  # what is forbidden is dropped, the connection stays
    assert [m.payload for m in d2.messages] == [b"for d2"]
    for client in (bridge, d1, d2):
        client.stop()


def test_what_comes_while_the_bridge_is_away_waits_for_it_in_order(broker: int) -> None:
    bridge = Client(broker, "tpstream-bridge", "secret", session="tpstream-bridge-0")
    bridge.subscribe("devices/+/telemetry")
    bridge.stop()
    device = Client(broker, "d1", "d1")
    for n in range(MESSAGES):
        last = device.publish("devices/d1/telemetry", str(n))
    last.wait_for_publish(20)

    again = Client(broker, "tpstream-bridge", "secret", session="tpstream-bridge-0")
    assert again.until(lambda: len(again.messages) >= MESSAGES, 20)
    assert [int(m.payload) for m in again.messages] == list(range(MESSAGES))
    device.stop()
    again.stop()

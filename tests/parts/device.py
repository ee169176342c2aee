"""One device as its maker would build it on paho: it says things, and answers commands."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paho.mqtt.client as mqtt
from parts.whole import Platform

SUCCESS = {"result": 0}


@dataclass(frozen=True)
class Received:
    """A command as it came."""

    topic: str
    payload: bytes
    qos: int
    retained: bool
    at: float
    """Monotonic seconds."""

    @property
    def id(self) -> str:
        """The message id, the last segment of the topic."""
        return self.topic.rsplit("/", 1)[1]


class Device:
    """A connected device. `answer` makes of a command the response to it, or None: it stays silent."""

    def __init__(
        self,
        platform: Platform,
        number: str,
        *,
        answer: Callable[[Received], dict[str, Any] | None] = lambda command: SUCCESS,
        login: str | None = None,
        protocol: int = mqtt.MQTTv5,
        port: int | None = None,
        keep_alive: int = 60,
    ) -> None:
        self.number = number
        self.commands: list[Received] = []
        self.ended: list[int] = []
        """The reason code of each end of a connection."""
        self._answer = answer
        self._done: dict[int, int] = {}
        self._change = threading.Condition()
        self._subscribed = threading.Event()
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=number, protocol=protocol)  # type: ignore[arg-type]
        if login is not None:
            client.username_pw_set(login)
        client.on_connect = lambda *_: client.subscribe(f"devices/command/{number}/+", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._command
        client.on_publish = self._published
        client.on_disconnect = lambda *given: self.ended.append(int(given[3].value))
        client.reconnect_delay_set(1, 1)
        client.connect(platform.settings.host, port or platform.settings.mqtt_port, keepalive=keep_alive)
        client.loop_start()
        self.client = client
        assert self._subscribed.wait(10), f"{number}: no SUBACK"

    def say(self, payload: Any, *, topic: str = "", qos: int = 1, patience: float = 15.0) -> int:
        """Publish (telemetry, where no topic is given), wait for the PUBACK, and return its reason code."""
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        mid = self.client.publish(topic or f"devices/{self.number}/telemetry", body, qos=qos).mid
        end = time.monotonic() + patience
        with self._change:
            while mid not in self._done:
                assert self._change.wait(end - time.monotonic()), f"{self.number}: no PUBACK in {patience} s"
            return self._done.pop(mid)

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()

    def _published(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        with self._change:
            self._done[mid] = int(reason.value)
            self._change.notify_all()

    def _command(self, client: Any, userdata: Any, message: mqtt.MQTTMessage) -> None:
        command = Received(message.topic, message.payload, message.qos, message.retain, time.monotonic())
        self.commands.append(command)
        response = self._answer(command)
        if response is not None:
            client.publish(f"devices/{self.number}/command/response/{command.id}", json.dumps(response), qos=1)

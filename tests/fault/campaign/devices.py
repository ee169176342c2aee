"""Devices of paho's, that speak to the bridge at QoS 1 and keep the ledger; a process of its own.

Each keeps its session: what has not been acknowledged when a connection ends is sent on the next one, by the same
packet id and with DUP. What is in the ledger has been acknowledged to its device.

python -m fault.campaign.devices PORT BASE RATE LEDGER
It prints a line of JSON a second. On SIGTERM it stops after the messages that are due, waits until all of them have
been acknowledged, prints how many they were, and ends.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from fault.campaign.ledger import Ledger
from fault.campaign.spoken import PREFIX, Spoken

TICK = 0.02
KEEP_ALIVE = 5
"""Seconds of silence after which a device takes its connection for dead, and a paused bridge has old and new ones."""


class Device:
    """One client, and which of its messages wait for a PUBACK."""

    def __init__(self, number: int, port: int, ledger: Ledger) -> None:
        self.acknowledged = self.connections = 0
        self._name, self._ledger = f"{PREFIX}{number}", ledger
        self._waiting: dict[int, int] = {}
        self._early: set[int] = set()
        """Packet ids that were acknowledged before `publish` had returned them."""
        self._lock = threading.Lock()
        # Every other one speaks MQTT 3.1.1.
        old = number % 2 == 1
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._name,
            protocol=paho.MQTTv311 if old else paho.MQTTv5,
            **({"clean_session": False} if old else {}),  # type: ignore[arg-type]
        )
        self._client.on_publish = self._on_publish
        self._client.on_connect = self._on_connect
        self._client.reconnect_delay_set(1, 2)
        more = {} if old else {"clean_start": False}
        self._client.connect_async("127.0.0.1", port, keepalive=KEEP_ALIVE, **more)  # type: ignore[arg-type]
        self._client.loop_start()

    def publish(self, n: int, payload: bytes) -> None:
        """Send message n, now or as soon as there is a connection."""
        packet_id = self._client.publish(f"devices/{self._name}/telemetry", payload, qos=1).mid
        with self._lock:
            if packet_id in self._early:
                self._early.remove(packet_id)
                self._take(n)
            else:
                self._waiting[packet_id] = n

    def end(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, n: int) -> None:
        self._ledger.acknowledged([n])
        self.acknowledged += 1

    def _on_publish(self, client: Any, userdata: Any, packet_id: int, *rest: Any) -> None:
        with self._lock:
            if packet_id in self._waiting:
                self._take(self._waiting.pop(packet_id))
            else:
                self._early.add(packet_id)

    def _on_connect(self, *about: Any) -> None:
        self.connections += 1


def main(port: int, plan: Spoken, ledger: Ledger) -> None:
    """Until SIGTERM, and then until all is acknowledged."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    devices = [Device(number, port, ledger) for number in range(plan.devices)]
    sent, said = 0, 0.0

    def say(**more: object) -> None:
        acknowledged, connections = (sum(getattr(d, of) for d in devices) for of in ("acknowledged", "connections"))
        print(json.dumps({"sent": sent, "acknowledged": acknowledged, "connections": connections, **more}), flush=True)

    while not stop.wait(TICK) or sum(device.acknowledged for device in devices) < sent:
        while not stop.is_set() and plan.due(sent) <= time.time() * 1000:
            devices[sent % len(devices)].publish(sent, plan.payload(sent))
            sent += 1
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            say()
        if stop.is_set():
            time.sleep(TICK)
    say(finished=True)
    for device in devices:
        device.end()


if __name__ == "__main__":
    port, base, rate, path = sys.argv[1:]
    main(int(port), Spoken(int(base), int(rate)), Ledger(Path(path)))

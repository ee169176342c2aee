"""Devices that nobody here wrote: paho clients that number their messages, and the ledger of what they said."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import paho.mqtt.client as mqtt
from parts.whole import Platform


@dataclass
class Ledger:
    """What was published and acknowledged, by id; `compare` holds it against what is stored."""

    acknowledged: set[int] = field(default_factory=set)
    published: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def compare(self, stored: Counter[int]) -> dict[str, int]:
        """Acknowledged but not stored, stored more than once, stored but never published."""
        return {
            "lost": len(self.acknowledged - set(stored)),
            "duplicated": sum(count - 1 for count in stored.values()),
            "foreign": len(set(stored) - self.published),
        }


def stored_ids(platform: Platform, prefix: str = "ledger") -> Counter[int]:
    """How often the store shows each id, of a fleet's devices."""
    return Counter(
        {
            int(n): int(c)
            for n, c in platform.rows(
                "SELECT number, count() FROM telemetry"
                f" WHERE key = 'id' AND startsWith(device, '{prefix}-') GROUP BY number"
            )
        }
    )


class Fleet:
    """Paho clients, each a device that publishes its share of numbered messages at QoS 1.

    `prefix`, a dash and a number is a device's number; `port` is where they connect to, if not to the platform.
    `stamped`: each message has a time of its own, the device's, so that a repeated one is the same point.
    """

    def __init__(
        self,
        platform: Platform,
        devices: int,
        each: int,
        *,
        protocol: int,
        pause: float = 0.0,
        prefix: str = "ledger",
        port: int | None = None,
        stamped: bool = False,
    ) -> None:
        self.ledger = Ledger()
        self.prefix = prefix
        self._host, self._port = platform.settings.host, port or platform.settings.mqtt_port
        self._pause = pause
        self._stamps = time.time_ns() // 1_000_000 - devices * each if stamped else None
        self._enough = threading.Event()
        self._threads = [
            threading.Thread(target=self._device, args=(n, range(n * each, (n + 1) * each), protocol), daemon=True)
            for n in range(devices)
        ]

    def start(self) -> None:
        """Let all devices begin."""
        for thread in self._threads:
            thread.start()

    def enough(self) -> None:
        """Let each device stop after the message in hand."""
        self._enough.set()

    def join(self, patience: float = 120.0) -> None:
        """Wait until every device has its acknowledgements."""
        end = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name}: not everything was acknowledged in {patience} s"

    def _payload(self, values: dict[str, Any]) -> str:
        return json.dumps({"ts": self._stamps + values["id"], "values": values} if self._stamps else values)

    def _device(self, number: int, ids: range, protocol: int) -> None:
        device = f"{self.prefix}-{number}"
        mids: dict[int, int] = {}
        early: set[int] = set()
        done = threading.Event()

        def acknowledged(client: Any, userdata: Any, mid: int, *rest: Any) -> None:
            with self.ledger.lock:
                if mid in mids:
                    self.ledger.acknowledged.add(mids.pop(mid))
                else:
                    early.add(mid)
            if not mids:
                done.set()

        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=device, protocol=protocol)  # type: ignore[arg-type]
        client.on_publish = acknowledged
        client.max_inflight_messages_set(20)
        client.reconnect_delay_set(1, 2)
        client.connect_async(self._host, self._port)
        client.loop_start()
        for identity in ids:
            payload = self._payload({"id": identity, "temperature": 20.5, "on": True})
            with self.ledger.lock:
                self.ledger.published.add(identity)
            # Not under the lock: paho calls back under one of its own, which publish takes too.
            info = client.publish(f"devices/{device}/telemetry", payload, qos=1)
            with self.ledger.lock:
                done.clear()
                mids[info.mid] = identity
                if info.mid in early:
                    early.discard(info.mid)
                    self.ledger.acknowledged.add(mids.pop(info.mid))
            if self._enough.wait(self._pause) if self._pause else self._enough.is_set():
                break
        while True:
            with self.ledger.lock:
                if not mids:
                    break
            done.wait(0.2)
        client.disconnect()
        client.loop_stop()


def whole(platform: Platform, fleet: Fleet, patience: float = 30.0) -> None:
    """Wait until all that was acknowledged is stored; assert that each is there once, and nothing else."""
    wanted = fleet.ledger.acknowledged
    platform.wait(lambda: len(stored_ids(platform, fleet.prefix)) >= len(wanted), patience)
    assert fleet.ledger.compare(stored_ids(platform, fleet.prefix)) == {"lost": 0, "duplicated": 0, "foreign": 0}

"""Looks at the store all the time: how fresh it is, and how long it stood still."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import clickhouse_connect

EVERY = 0.25


class Sampler(threading.Thread):
    """Asks for the newest point of a few devices, some on each partition.

    `fresh` is the event time (ms) up to which all of them are stored; `longest_stall` the longest time in which one
    of them got no new point, though it publishes ten a second.
    """

    def __init__(self, port: int, devices: Sequence[str]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.fresh = 0
        self._port = port
        self._names = ", ".join(f"'{device}'" for device in devices)
        self._newest: dict[str, int] = dict.fromkeys(devices, 0)
        self._moved: dict[str, float] = {}
        self._stalls: list[tuple[float, float]] = []
        """When each stall of a second or more began and ended, wall time in seconds."""
        self._ending = threading.Event()
        self._client: Any = None

    def run(self) -> None:
        """Until `end`."""
        while not self._ending.wait(EVERY):
            self._look(time.time())

    def end(self) -> None:
        """Stop, and wait for it."""
        self._ending.set()
        self.join(15)

    def _look(self, now: float) -> None:
        try:
            if self._client is None:
                self._client = clickhouse_connect.get_client(
                    host="127.0.0.1", port=self._port, autogenerate_session_id=False, send_receive_timeout=3
                )
            rows = self._client.query(
                "SELECT device, toUnixTimestamp64Milli(max(ts)) FROM telemetry_rows"
                f" WHERE tenant = 'default' AND key IN ('n', 'm') AND device IN ({self._names}) GROUP BY device"
            ).result_rows
        except Exception:
            self._client = None
            return
        for device, newest in rows:
            if newest > self._newest[device]:
                self._newest[device] = newest
                began = self._moved.get(device, now)
                if now - began > 1:
                    self._stalls.append((began, now))
                self._moved[device] = now
        self.fresh = min(self._newest.values())

    def longest_stall(self, began: float, ended: float) -> float:
        """Seconds of the longest stall that began between two times, or was going on at the later one; 0: none."""
        now = time.time()
        open_now = [(moved, now) for moved in list(self._moved.values()) if now - moved > 1]
        lasting = [stop - start for start, stop in [*self._stalls, *open_now] if start < ended and stop > began]
        return max(lasting, default=0.0)

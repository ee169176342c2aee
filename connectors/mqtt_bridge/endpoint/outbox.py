"""Downlink on its way to one client: a bounded queue, and what is in flight. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from connectors.mqtt_bridge.downlink import Downlink, Receipt
from connectors.mqtt_bridge.endpoint import encode
from connectors.mqtt_bridge.endpoint.packets import V311

IN_FLIGHT = 20
"""QoS 1 publishes sent to a client at a time, if it does not want fewer."""

QUEUED = 100
"""Publishes that wait for a client; more are dropped, and sent again by agents/downlink."""

QUEUED_BYTES = 1_000_000
"""Bytes of payload that wait for a client."""


class Outbox:
    """Queue and packet ids of one session."""

    def __init__(self, receive_maximum: int = 65_535, max_packet: int = 0, version: int = V311) -> None:
        self.dropped = 0
        """Publishes that found the queue full, or that are larger than the client takes."""
        self._maximum = min(receive_maximum, IN_FLIGHT)
        self._max_packet = max_packet
        self._version = version
        self._queue: deque[tuple[Downlink, int]] = deque()
        self._bytes = 0
        self._in_flight: dict[int, Downlink] = {}
        self._last_id = 0

    def add(self, downlink: Downlink, qos: int) -> None:
        """Queue a publish; it is counted in `dropped` where there is no room."""
        size = len(downlink.payload)
        full = len(self._queue) >= QUEUED or (self._queue and self._bytes + size > QUEUED_BYTES)
        if full or (self._max_packet and size + len(downlink.topic.encode()) + 10 > self._max_packet):
            self.dropped += 1
            return
        self._queue.append((downlink, qos))
        self._bytes += size

    def ready(self, out: bytearray) -> Iterator[Downlink]:
        """Write what may be sent now to `out`; yields those that need no acknowledgement."""
        while self._queue:
            downlink, qos = self._queue[0]
            if qos and len(self._in_flight) >= self._maximum:
                return
            self._queue.popleft()
            self._bytes -= len(downlink.payload)
            packet_id = self._next_id() if qos else 0
            out += encode.publish(self._version, downlink.topic.encode(), downlink.payload, qos, packet_id)
            if qos:
                self._in_flight[packet_id] = downlink
            else:
                yield downlink

    def acknowledged(self, packet_id: int) -> Receipt | None:
        """The client's PUBACK; None: nothing of that packet id is in flight."""
        downlink = self._in_flight.pop(packet_id, None)
        return None if downlink is None else Receipt(downlink, 1)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._in_flight:
                return self._last_id

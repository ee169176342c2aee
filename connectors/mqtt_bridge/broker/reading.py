"""Reading from a broker in large pieces: the one place that knows paho from inside.

paho takes several `recv` calls for each packet, builds a message object, and acknowledges one by
one: 20 to 30 µs a message. Here a large buffer is read and cut by our own parser, publishes are
taken as they are, acknowledgements of a batch go out in one write, and everything else is left to
paho. A broker writes message by message, so reading is left off for some milliseconds after each
time: wake-ups are what costs (measured: 4.8 µs a message instead of 35 to 41).

Private names used, of paho-mqtt 2.2: `_in_packet`, `_packet_handle`, `_packet_queue`,
`_loop_rc_handle`, `_last_bytes_received`. `tests/unit/bridge/test_bridge_paho_names.py` says so when
they change.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import paho.mqtt.client as paho

from connectors.mqtt_bridge.endpoint.encode import puback
from connectors.mqtt_bridge.endpoint.packets import V5
from connectors.mqtt_bridge.endpoint.parse import publish
from connectors.mqtt_bridge.endpoint.properties import varint
from connectors.mqtt_bridge.endpoint.reasons import Violation
from connectors.mqtt_bridge.publish import Publish

PIECE = 256 * 1024
"""Bytes read at a time."""

PAUSE = 0.003
"""Seconds between two readings while messages come."""

_PUBLISH = 0x30
_PUBACK = 0x40


class Reading:
    """Reads one connection of a paho client on an event loop."""

    def __init__(
        self,
        client: Any,
        loop: asyncio.AbstractEventLoop,
        take: Callable[[list[Publish]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._loop = loop
        self._take = take
        self._failed = failed
        self._buffer = b""
        self._file = -1
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Read whenever there is something to read."""
        socket = self._client.socket()
        if socket is not None and not self._stopped:
            self._file = socket.fileno()
            self._loop.add_reader(self._file, self._read)

    def pause(self) -> None:
        """Read nothing; the broker holds what comes."""
        if not self._stopped:
            self._stopped = True
            self._leave_off()

    def resume(self) -> None:
        """Read again."""
        if self._stopped:
            self._stopped = False
            self.start()

    def discard(self) -> None:
        """Read on, but take no publish any more: the broker sends what is not acknowledged again."""
        self._take = lambda publishes: None
        self.resume()

    def end(self) -> None:
        """The connection is no more."""
        self.pause()

    def acknowledge(self, publishes: Iterable[Publish]) -> None:
        """Acknowledge publishes of this connection, all in one write."""
        acks = b"".join(puback(V5, one.packet_id, one.reason) for one in publishes)
        if acks and self._client.socket() is not None:
            self._client._packet_queue(_PUBACK, acks, 0, 1)

    def _leave_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            self._file = -1

    def _go_on(self) -> None:
        self._timer = None
        self.start()

    def _read(self) -> None:
        try:
            data = self._client.socket().recv(PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, AttributeError):
            data = b""
        if not data:
            self._leave_off()
            self._client._loop_rc_handle(paho.MQTT_ERR_CONN_LOST)
            return
        self._client._last_bytes_received = time.monotonic()
        try:
            publishes = self._cut(self._buffer + data if self._buffer else data)
        except Violation as error:
            self._leave_off()
            self._failed(error)
            return
        if publishes:
            self._take(publishes)
            if not self._stopped:
                self._leave_off()
                self._timer = self._loop.call_later(PAUSE, self._go_on)

    def _cut(self, data: bytes) -> list[Publish]:
        """The publishes in the buffer; other packets are handed to paho on the way."""
        publishes = []
        at, size = 0, len(data)
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length > 0x7F:
                if size - at < 5 and all(byte > 0x7F for byte in data[at + 1 :]):
                    break
                length, begin = varint(data, at + 1, size)
            end = begin + length
            if end > size:
                break
            if data[at] & 0xF0 == _PUBLISH:
                publishes.append(publish(data, data[at] & 0x0F, begin, end, V5))
            else:
                self._leave_to_paho(data[at], data[begin:end])
            at = end
        self._buffer = data[at:]
        return publishes

    def _leave_to_paho(self, command: int, body: bytes) -> None:
        packet = self._client._in_packet
        self._client._in_packet = {
            **packet,
            "command": command,
            "have_remaining": 1,
            "remaining_length": len(body),
            "packet": bytearray(body),
        }
        code = self._client._packet_handle()
        self._client._in_packet = packet
        if code:
            self._client._loop_rc_handle(code)

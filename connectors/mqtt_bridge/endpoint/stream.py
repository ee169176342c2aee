"""The byte stream of one connection, cut into packets: bytes in, packets out. Pure.

A packet is parsed from the one buffer that the socket read filled; what is cut off waits
in pieces until it is whole. A publish above the payload limit is hashed and cut to its
beginning while it comes in, so that it never stands in memory.
"""

from __future__ import annotations

import hashlib

from connectors.mqtt_bridge.endpoint.packets import V5, V311, Connect, Packet
from connectors.mqtt_bridge.endpoint.parse import MAX_PROPERTIES, parse, publish
from connectors.mqtt_bridge.endpoint.properties import varint
from connectors.mqtt_bridge.endpoint.reasons import Reason, Violation
from connectors.mqtt_bridge.publish import Publish

KEPT = 64 * 1024
"""Bytes kept of a payload that is too large (docs/protocol.md)."""

MAX_CONNECT = 330_000
"""Bytes of a CONNECT packet: five fields of 64 KB; who has not logged in yet gets no more memory."""

_PUBLISH = 3


class Stream:
    """Cuts a client's bytes into packets."""

    __slots__ = ("_at", "_cut", "_data", "_max_packet", "_max_payload", "_more", "_need", "_waiting", "version")

    def __init__(self, max_packet: int, max_payload: int) -> None:
        self.version = 0
        """Protocol level, known after CONNECT."""
        self._max_packet = max_packet
        self._max_payload = max_payload
        self._data = b""
        self._at = 0
        self._need = 0
        self._more: list[bytes] = []
        self._waiting = 0
        self._cut: _Cut | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket."""
        if not self._more and self._at >= len(self._data):
            self._data = data
            self._at = 0
        else:
            self._more.append(data)
            self._waiting += len(data)

    @property
    def buffered(self) -> int:
        """Bytes that wait here."""
        return len(self._data) - self._at + self._waiting

    @property
    def expected(self) -> int:
        """Bytes that will wait here until the packet that is coming in is whole; 0: none is."""
        return self._need

    def head(self) -> int:
        """The first byte of the next packet, or -1."""
        if self._cut is not None:
            return -1
        if self._at < len(self._data):
            return self._data[self._at]
        return self._more[0][0] if self._more else -1

    def next(self) -> Packet | None:
        """The next whole packet, or None. Raises Violation: the connection cannot go on."""
        data, at = self._data, self._at
        size = len(data)
        if at == size and not self._more:
            return None
        if self._cut is not None:
            return self._go_on_cutting(self._cut)
        if self._more:
            if self._need > len(data) - at + self._waiting:
                return None
            data, at = self._join()
            size = len(data)
        if size - at < 2:
            return None
        length = data[at + 1]
        begin = at + 2
        if length > 0x7F:
            if size - at < 5 and all(byte > 0x7F for byte in data[at + 1 :]):
                return None
            length, begin = varint(data, at + 1, size)
        end = begin + length
        if end > size or length > self._max_payload:
            self._check(data[at], end - at)
            if data[at] >> 4 == _PUBLISH and length > self._max_payload:
                payload = self._payload_at(data, at, begin, end)
                if payload is None:
                    return None
                if end - payload > self._max_payload:
                    made = publish(data, data[at] & 0x0F, begin, payload, self.version)
                    self._at = payload
                    self._cut = _Cut(made, end - payload)
                    return self._go_on_cutting(self._cut)
            if end > size:
                self._need = end - at
                return None
        self._need = 0
        self._at = end
        if data[at] >> 4 == _PUBLISH and self.version:
            return publish(data, data[at] & 0x0F, begin, end, self.version)
        return self._other(data, at, begin, end)

    def _join(self) -> tuple[bytes, int]:
        data = self._data[self._at :] + b"".join(self._more)
        self._more.clear()
        self._waiting = 0
        self._data = data
        self._at = 0
        return data, 0

    def _check(self, first: int, size: int) -> None:
        """Refuse at the fixed header what is too large to be read."""
        if not self.version and first >> 4 != 1:
            raise Violation(Reason.PROTOCOL_ERROR, "the first packet is no CONNECT")
        if size > (self._max_packet if self.version else MAX_CONNECT):
            raise Violation(Reason.PACKET_TOO_LARGE, f"a packet of {size} bytes")

    def _other(self, data: bytes, at: int, begin: int, end: int) -> Packet:
        if not self.version and data[at] >> 4 != 1:
            raise Violation(Reason.PROTOCOL_ERROR, "the first packet is no CONNECT")
        packet = parse(data, data[at], begin, end, self.version)
        if isinstance(packet, Connect):
            self.version = V5 if packet.version == V5 else V311
        return packet

    def _payload_at(self, data: bytes, at: int, begin: int, end: int) -> int | None:
        """Where the payload of a large publish begins; None: what stands before it is not there yet."""
        size = len(data)
        if size < begin + 2:
            return None
        place = begin + 2 + (data[begin] << 8 | data[begin + 1]) + (2 if data[at] & 6 else 0)
        if self.version == V5:
            if place >= size or (size - place < 4 and all(byte > 0x7F for byte in data[place:])):
                return None
            length, place = varint(data, place, size)
            if length > MAX_PROPERTIES:
                raise Violation(Reason.PACKET_TOO_LARGE, f"properties of {length} bytes")
            place += length
        if place > end:
            raise Violation(Reason.MALFORMED, "a topic is longer than its packet")
        return place if place <= size else None

    def _go_on_cutting(self, cut: _Cut) -> Publish | None:
        self._need = KEPT
        if self._more:
            self._join()
        piece = self._data[self._at : self._at + cut.left]
        self._at += len(piece)
        cut.take(piece)
        if cut.left:
            return None
        self._cut = None
        self._need = 0
        return cut.finish()


class _Cut:
    """A publish whose payload is too large, on its way in."""

    def __init__(self, made: Publish, size: int) -> None:
        self.left = size
        self._made = made
        self._size = size
        self._hash = hashlib.sha256()
        self._kept = bytearray()

    def take(self, piece: bytes) -> None:
        self._hash.update(piece)
        self._kept += piece[: KEPT - len(self._kept)]
        self.left -= len(piece)

    def finish(self) -> Publish:
        made = self._made
        made.payload = bytes(self._kept)
        made.size = self._size
        made.digest = self._hash.hexdigest()
        return made

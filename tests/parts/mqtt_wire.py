"""MQTT as a client writes and reads it, byte by byte: for tests that must break the rules, or count."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = 2, 3, 4, 9, 11, 13, 14


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes = b"") -> bytes:
    return bytes((first,)) + varint(len(body)) + body


def connect(
    client_id: str = "",
    user: str | None = None,
    *,
    version: int = 5,
    keep_alive: int = 60,
    clean: bool = True,
    properties: bytes = b"",
    password: bytes | None = None,
) -> bytes:
    flags = (2 if clean else 0) | (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes((version, flags)) + keep_alive.to_bytes(2, "big")
    if version == 5:
        body += varint(len(properties)) + properties
    body += text(client_id)
    if user is not None:
        body += text(user)
    if password is not None:
        body += text(password)
    return packet(0x10, body)


def publish(
    topic: str | bytes,
    payload: bytes = b"",
    *,
    packet_id: int = 0,
    version: int = 5,
    qos: int | None = None,
    dup: bool = False,
    retained: bool = False,
    properties: bytes = b"",
) -> bytes:
    qos = (1 if packet_id else 0) if qos is None else qos
    body = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    if version == 5:
        body += varint(len(properties)) + properties
    return packet(0x30 | dup << 3 | qos << 1 | retained, body + payload)


def subscribe(packet_id: int, filters: Iterable[tuple[str, int]], *, version: int = 5) -> bytes:
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == 5 else b"")
    return packet(0x82, body + b"".join(text(one) + bytes((qos,)) for one, qos in filters))


def unsubscribe(packet_id: int, filters: Iterable[str], *, version: int = 5) -> bytes:
    body = packet_id.to_bytes(2, "big") + (b"\0" if version == 5 else b"")
    return packet(0xA2, body + b"".join(text(one) for one in filters))


def puback(packet_id: int, reason: int | None = None) -> bytes:
    return packet(0x40, packet_id.to_bytes(2, "big") + (b"" if reason is None else bytes((reason,))))


PINGREQ = packet(0xC0)
BYE = packet(0xE0)


class Answer(NamedTuple):
    """A packet from the server: its type, flags and body."""

    kind: int
    flags: int
    body: bytes

    @property
    def packet_id(self) -> int:
        """Of PUBACK, SUBACK and UNSUBACK."""
        return int.from_bytes(self.body[:2], "big")


def split(data: bytes) -> tuple[list[Answer], bytes]:
    """The whole packets in `data`, and what is left."""
    found = []
    at = 0
    while len(data) - at >= 2:
        length = shift = 0
        place = at + 1
        while True:
            if place >= len(data):
                return found, data[at:]
            byte = data[place]
            length |= (byte & 0x7F) << shift
            shift += 7
            place += 1
            if byte < 0x80:
                break
        if place + length > len(data):
            break
        found.append(Answer(data[at] >> 4, data[at] & 15, data[place : place + length]))
        at = place + length
    return found, data[at:]


class Socket:
    """A device that does exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._left = b""
        self._answers: list[Answer] = []

    @classmethod
    async def open(cls, port: int, first: bytes = b"") -> Socket:
        """Connect and send some bytes."""
        made = cls(*await asyncio.open_connection("127.0.0.1", port))
        made.send(first)
        return made

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, seconds: float = 5.0) -> Answer:
        """The next packet. TimeoutError: none came; EOFError: the server has closed."""
        async with asyncio.timeout(seconds):
            while not self._answers:
                data = await self.reader.read(65_536)
                if not data:
                    raise EOFError
                self._answers, self._left = split(self._left + data)
        return self._answers.pop(0)

    async def answers(self, count: int, seconds: float = 5.0) -> list[Answer]:
        return [await self.answer(seconds) for _ in range(count)]

    async def silent(self, seconds: float = 0.3) -> bool:
        """Whether nothing comes for that long, and the connection stays."""
        try:
            self._answers.insert(0, await self.answer(seconds))
        except TimeoutError:
            return True
        except EOFError:
            return False
        return False

    async def closed(self, seconds: float = 5.0) -> list[Answer]:
        """What comes until the server closes. TimeoutError: it does not."""
        found = []
        async with asyncio.timeout(seconds):
            while True:
                try:
                    found.append(await self.answer(seconds))
                except (EOFError, ConnectionError):
                    self.writer.close()
                    return found

    def close(self) -> None:
        self.writer.close()

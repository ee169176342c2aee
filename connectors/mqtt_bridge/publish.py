"""A publish on its way from a device to Kafka, and who waits for word of it."""

from __future__ import annotations

from typing import Protocol

from tpstream.bus.envelope import WayIn

OVERHEAD = 500
"""Bytes that a publish costs in memory besides its payload until Kafka has it (measured, rounded up)."""


class Source(Protocol):
    """What a publish came from: a device's session, or the session with a broker."""

    way_in: WayIn
    number: int
    """The session's number (64 bits)."""
    login: str | None
    """The device number that logged in, where the login is trusted."""

    def landed(self) -> None:
        """Some of its publishes are in Kafka (`Publish.landed`); acknowledge them, in order."""


class Publish:
    """One publish. Slots and no dataclass: one is made per message."""

    __slots__ = (
        "content_type",
        "digest",
        "dup",
        "landed",
        "packet_id",
        "payload",
        "qos",
        "reason",
        "retained",
        "size",
        "source",
        "topic",
        "users",
    )

    source: Source

    def __init__(
        self,
        topic: str,
        payload: bytes,
        qos: int = 0,
        dup: bool = False,
        retained: bool = False,
        packet_id: int = 0,
        content_type: str = "",
        users: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.dup = dup
        self.retained = retained
        self.packet_id = packet_id
        self.content_type = content_type
        self.users = users
        """User properties of MQTT 5."""
        self.size = len(payload)
        """Bytes that the device sent; more than there are in `payload` where it was too large."""
        self.digest = ""
        """SHA-256 of the whole payload, in hex, where it was too large."""
        self.reason = 0
        """Reason code of MQTT 5 to acknowledge it with."""
        self.landed = False
        """Kafka has it."""

    @property
    def cost(self) -> int:
        """Bytes that it counts against TPSTREAM_MAX_BUFFERED_BYTES."""
        return len(self.payload) + OVERHEAD

"""The packets that a client sends, as they come out of the codec."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.mqtt_bridge.publish import Publish

V311 = 4
V5 = 5


@dataclass(frozen=True, slots=True)
class Will:
    """What a client wants published when it is lost. Read, checked, and not used yet."""

    topic: str
    payload: bytes
    qos: int
    retained: bool


@dataclass(frozen=True, slots=True)
class Connect:
    """CONNECT."""

    version: int
    clean: bool
    keep_alive: int
    """Seconds; 0: none."""
    client_id: str
    user: str | None
    password: bytes | None
    will: Will | None = None
    session_expiry: int = 0
    """Seconds (MQTT 5)."""
    receive_maximum: int = 65_535
    """QoS 1 publishes that the client takes without having acknowledged them."""
    max_packet: int = 0
    """Bytes of a packet that the client takes; 0: any."""
    authentication_method: str = ""


@dataclass(frozen=True, slots=True)
class Puback:
    """PUBACK of a downlink publish."""

    packet_id: int
    reason: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """SUBSCRIBE: filters with the highest QoS wanted."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]
    identifier: bool = False
    """It carries a subscription identifier, which the endpoint does not offer."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """UNSUBSCRIBE."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """PINGREQ."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """DISCONNECT."""

    reason: int


Packet = Publish | Connect | Puback | Subscribe | Unsubscribe | Ping | Disconnect

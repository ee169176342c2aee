"""Packets to bytes: one function for each that the endpoint sends. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from connectors.mqtt_bridge.endpoint import properties as p
from connectors.mqtt_bridge.endpoint.packets import V5
from connectors.mqtt_bridge.endpoint.reasons import Reason, return_code

PINGRESP = b"\xd0\x00"


def connack(version: int, reason: Reason, properties: p.Properties | None = None) -> bytes:
    """CONNACK, session not present: sessions are clean ones."""
    if version != V5:
        return bytes((0x20, 2, 0, return_code(reason)))
    return _packet(0x20, bytes((0, reason)) + p.write(properties or {}))


def puback(version: int, packet_id: int, reason: int = 0) -> bytes:
    """PUBACK; without its reason where that says nothing."""
    if reason and version == V5:
        return bytes((0x40, 3, packet_id >> 8, packet_id & 0xFF, reason))
    return bytes((0x40, 2, packet_id >> 8, packet_id & 0xFF))


def publish(version: int, topic: bytes, payload: bytes, qos: int, packet_id: int) -> bytes:
    """PUBLISH, not retained, sent for the first time."""
    middle = packet_id.to_bytes(2, "big") if qos else b""
    if version == V5:
        middle += b"\0"
    return _packet(0x30 | qos << 1, len(topic).to_bytes(2, "big") + topic + middle + payload)


def suback(version: int, packet_id: int, codes: Iterable[int]) -> bytes:
    """SUBACK: the QoS granted or the reason against it, for each filter."""
    return _packet(0x90, packet_id.to_bytes(2, "big") + (b"\0" if version == V5 else b"") + bytes(codes))


def unsuback(version: int, packet_id: int, codes: Iterable[int]) -> bytes:
    """UNSUBACK."""
    return _packet(0xB0, packet_id.to_bytes(2, "big") + (b"\0" + bytes(codes) if version == V5 else b""))


def disconnect(version: int, reason: Reason) -> bytes:
    """DISCONNECT; nothing in MQTT 3.1.1, where a server only closes."""
    return bytes((0xE0, 1, reason)) if version == V5 else b""


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + p.write_varint(len(body)) + body

"""What is to be published to a device: a record of tp.downlink.mqtt.v1. Pure."""

from __future__ import annotations

from typing import NamedTuple

from tpstream.bus.envelope import Headers, header
from tpstream.uplink.dialects import device_of_filter


class Downlink(NamedTuple):
    """One publish to a device."""

    device: str
    topic: str
    payload: bytes
    message_id: str = ""
    """Empty: nobody waits for a receipt."""

    @classmethod
    def read(cls, key: bytes | None, value: bytes | None, headers: Headers) -> Downlink | None:
        """The downlink of a record, or None where it is no publish to a topic of the device that is its key."""
        try:
            device = (key or b"").decode()
            topic = (header(headers, "topic") or b"").decode()
            message_id = (header(headers, "message_id") or b"").decode()
        except UnicodeDecodeError:
            return None
        if not device or value is None or device_of_filter(topic) != device:
            return None
        return cls(device, topic, value, message_id)


class Receipt(NamedTuple):
    """Word of a downlink, from a session: `qos` 0: written to the socket; 1: acknowledged with PUBACK."""

    downlink: Downlink
    qos: int

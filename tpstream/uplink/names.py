"""What topics say, remembered: nearly every message comes on a topic that was seen before."""

from __future__ import annotations

from zlib import crc32

from tpstream.devices.profiles import ScriptRef
from tpstream.uplink.dialects import Address, What, address

NAMES = 200_000
"""Topics whose meaning is remembered; beyond, all are forgotten and begin anew."""


class Named:
    """What a topic says, and what was looked up of its device."""

    __slots__ = ("address", "crc", "device", "key", "present", "release", "script")

    def __init__(self, address: Address, topic: bytes) -> None:
        plain = address.what is What.TELEMETRY and not address.gateway
        self.address = None if plain else address
        """None: telemetry of the device itself, as nearly all."""
        self.device = address.device
        self.key = address.device.encode()
        """The device's number, as it must be the record's key."""
        self.crc = crc32(topic)
        self.present: object = None
        """`Catalog.present` when the device was known and its script looked up, and for which release."""
        self.release: str | None = None
        self.script: ScriptRef | None = None


known: dict[bytes, Named] = {}
"""By topic; for hot paths, before `named`."""


def named(topic: bytes) -> Named | None:
    """What a topic says; None where no dialect knows it."""
    found = known.get(topic)
    if found is not None:
        return found
    where = address(topic.decode(errors="replace"))
    if where is None:
        return None
    found = Named(where, topic)
    if not where.message_id:  # else it is not seen again
        if len(known) >= NAMES:
            known.clear()
        known[topic] = found
    return found

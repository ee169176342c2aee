"""The `tp` header: what a record carries besides its key, value and time.

Two packed structs, little endian, told apart by their first byte: `RawHeader` on
`tp.uplink.raw.v1`, written by bridges and partition owners; `DerivedHeader` on everything
decoded from it. Each begins with its format version; a newer one is refused, never guessed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from tpstream.bus.position import Position
from tpstream.errors import TpstreamError

Headers = Sequence[tuple[str, bytes]]

RAW_VERSION = 1
DERIVED_VERSION = 129
_RAW = struct.Struct("<BBBBBQQQH")
_DERIVED = struct.Struct("<BB16sIQI16sIQI")
_ORIGIN = struct.Struct("<16sIQI")


class Kind(IntEnum):
    """What a record in the raw topic, or passed on from it, says."""

    PUBLISH = 1
    CONNECTED = 2
    DISCONNECTED = 3
    RECEIPT = 4
    REFUSED = 5
    TICK = 6
    CONFIGURATION = 7


_KINDS = {int(kind): kind for kind in Kind}
_made = tuple.__new__


class Identity(IntEnum):
    """Who vouches for the device number of a raw record (docs/protocol.md, Identity)."""

    NONE = 0
    LOGIN = 1
    PREFIX = 2
    TOPIC = 3
    ENVELOPE = 4


class Refusal(IntEnum):
    """Why a bridge could not take a publish as a device's."""

    NONE = 0
    IDENTITY = 1
    TOPIC = 2
    SIZE = 3


class WayIn(IntEnum):
    """How a record came into the raw topic."""

    ENDPOINT = 0
    BROKER = 1
    OWNER = 2
    REPLAY = 3


class RawHeader(NamedTuple):
    """The `tp` header of a record in the raw topic."""

    kind: Kind
    qos: int = 0
    dup: bool = False
    retained: bool = False
    way_in: WayIn = WayIn.ENDPOINT
    identity: Identity = Identity.NONE
    refusal: Refusal = Refusal.NONE
    incarnation: int = 0
    """Random number of the bridge process (64 bits)."""
    sequence: int = 0
    """Rises by one per record of this incarnation in this partition."""
    session: int = 0
    """Random number of the device's MQTT session (64 bits)."""
    packet_id: int = 0

    def pack(self) -> bytes:
        """The bytes of the header `tp`."""
        flags = self.qos | self.dup << 2 | self.retained << 3 | self.way_in << 4
        return _RAW.pack(
            RAW_VERSION,
            self.kind,
            flags,
            self.identity,
            self.refusal,
            self.incarnation,
            self.sequence,
            self.session,
            self.packet_id,
        )

    @classmethod
    def unpack(cls, data: bytes) -> RawHeader:
        """Read a header; TpstreamError if it is of a newer version or torn."""
        if not data or data[0] != RAW_VERSION or len(data) != _RAW.size:
            raise TpstreamError(f"raw header of {len(data)} bytes, version {data[:1].hex()}: newer than this worker")
        _, kind, flags, identity, refusal, incarnation, sequence, session, packet_id = _RAW.unpack(data)
        return cls(
            Kind(kind),
            flags & 3,
            bool(flags & 4),
            bool(flags & 8),
            WayIn(flags >> 4),
            Identity(identity),
            Refusal(refusal),
            incarnation,
            sequence,
            session,
            packet_id,
        )


def pack_raw(
    kind: int, flags: int, identity: int, refusal: int, incarnation: int, sequence: int, session: int, packet_id: int
) -> bytes:
    """The same bytes as `RawHeader.pack` for who writes one per message: half the time, no tuple.

    `flags`: QoS, DUP << 2, retained << 3, way in << 4.
    """
    return _RAW.pack(RAW_VERSION, kind, flags, identity, refusal, incarnation, sequence, session, packet_id)


class DerivedHeader(NamedTuple):
    """The `tp` header of a record on a decoded topic: its kind, position and origin."""

    kind: Kind
    position: Position
    origin: Position

    def pack(self) -> bytes:
        """The bytes of the header `tp`."""
        return _DERIVED.pack(DERIVED_VERSION, self.kind, *self.position, *self.origin)

    @classmethod
    def unpack(cls, data: bytes) -> DerivedHeader:
        """Read a header; TpstreamError if it is of a newer version or torn."""
        if not data or data[0] != DERIVED_VERSION or len(data) != _DERIVED.size:
            raise TpstreamError(f"header of {len(data)} bytes, version {data[:1].hex()}: newer than this worker")
        _, kind, l1, p1, o1, i1, l2, p2, o2, i2 = _DERIVED.unpack(data)
        known = _KINDS.get(kind)
        if known is None:
            raise TpstreamError(f"header of unknown kind {kind}: newer than this worker")
        # Each agent reads it of each record: tuple.__new__ is half the price of the named tuples' own (measured).
        return _made(cls, (known, _made(Position, (l1, p1, o1, i1)), _made(Position, (l2, p2, o2, i2))))


def origin_in(data: bytes) -> tuple[bytes, int, int, int]:
    """The origin in a packed DerivedHeader: life, partition, offset, item; for hot paths, without the rest.

    Raises TpstreamError as DerivedHeader.unpack does.
    """
    if len(data) != _DERIVED.size or data[0] != DERIVED_VERSION:
        DerivedHeader.unpack(data)  # raises, and says why
    return _ORIGIN.unpack_from(data, _DERIVED.size - _ORIGIN.size)


def header(headers: Headers, name: str) -> bytes | None:
    """The first header of that name, or None."""
    for key, value in headers:
        if key == name:
            return value
    return None

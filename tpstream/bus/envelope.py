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
_RAW_FIELDS = struct.Struct("<BBBBQQQH")
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


ORIGIN = "tp-origin"
"""The header of a record in the raw topic that came by a replay (`WayIn.REPLAY`)."""

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


def raw_fields(data: bytes) -> tuple[int, int, int, int, int, int, int, int]:
    """What `RawHeader.unpack` reads, plain, for hot paths: what `pack_raw` takes.

    Raises TpstreamError as it does.
    """
    if len(data) != _RAW.size or data[0] != RAW_VERSION:
        RawHeader.unpack(data)  # raises, and says why
    return _RAW_FIELDS.unpack_from(data, 1)


def pack_origin(origin: Position) -> bytes:
    """The header `tp-origin`, by which a replay says where its record arrived first."""
    return _ORIGIN.pack(*origin)


def unpack_origin(data: bytes) -> Position:
    """Read a header `tp-origin`; TpstreamError if it is torn."""
    if len(data) != _ORIGIN.size:
        raise TpstreamError(f"header tp-origin of {len(data)} bytes, not {_ORIGIN.size}: written by no replay of ours")
    life, partition, offset, item = _ORIGIN.unpack(data)
    return Position(life, partition, offset, item)


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
        known = _KINDS.get(data[1])
        if known is None:
            raise TpstreamError(f"header of unknown kind {data[1]}: newer than this worker")
        # Each agent reads it of each record: tuple.__new__ is half the price of the named tuples' own, and most
        # records stand where they first arrived (measured).
        position = _made(Position, _ORIGIN.unpack_from(data, 2))
        origin = position if data[2:34] == data[34:] else _made(Position, _ORIGIN.unpack_from(data, 34))
        return _made(cls, (known, position, origin))


_PUBLISHED = bytes((DERIVED_VERSION, Kind.PUBLISH))


def pack_published(life: bytes, partition: int, offset: int, item: int = 0) -> bytes:
    """The bytes of `DerivedHeader.pack` for who writes one per message: a publish at its origin."""
    place = _ORIGIN.pack(life, partition, offset, item)
    return _PUBLISHED + place + place


_HEADS = {int(kind): bytes((DERIVED_VERSION, kind)) for kind in Kind}


def pack_derived(kind: int, position: Position, origin: Position | None = None) -> bytes:
    """The same bytes as `DerivedHeader.pack`, at half its cost. `origin` None: the position."""
    life, partition, offset, item = position  # a named tuple passed on with * costs 0.15 µs more (measured)
    place = _ORIGIN.pack(life, partition, offset, item)
    return _HEADS[kind] + place + (place if origin is None else _ORIGIN.pack(*origin))


def position_in(data: bytes) -> Position:
    """The position in a packed DerivedHeader. Raises TpstreamError as DerivedHeader.unpack does."""
    if len(data) != _DERIVED.size or data[0] != DERIVED_VERSION or data[1] not in _HEADS:
        DerivedHeader.unpack(data)  # raises, and says why
    return _made(Position, _ORIGIN.unpack_from(data, 2))


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

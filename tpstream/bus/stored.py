"""A table's value as it is stored, in the changelog and in RocksDB alike.

A head of fixed size, which recovery reads without decoding the rest, then msgpack of the
marks and the value. The first byte is the format version: older ones are read, newer refused.

The *stamp* orders all values that were ever written to one changelog partition: the owner's
epoch, then the number of its checkpoint. A stamp below one that stands before it in the log
is of an owner that had lost the partition, or of a request that Kafka took late, and says nothing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

from tpstream.bus.position import NO_LIFE, Life
from tpstream.errors import TpstreamError

FORMAT = 2
NEVER = 1 << 62
"""The due of a value that never wants attention, ms. Stored: that its table had no `due` to say so."""
ASKED = NEVER - 1
"""Stored: that its table's `due` said never."""

OWNER = b"\x00owner"
"""The changelog key under which an owner says that it begins; no table key begins with a zero byte."""

_HEAD = struct.Struct("<BQq16s")
_STAMP = struct.Struct("<BQ")
CURRENT = bytes([FORMAT])
"""The first byte of a value of this format."""
HEAD_BYTES = _HEAD.size
"""Of this format."""
unpack_stamp = _STAMP.unpack_from
"""Format and stamp of a value of this format. For recovery, which reads millions; all others take `stamp_of`."""
_OLD = b"\x94\x01"
"""How format 1 begins: msgpack's array of four, (1, life, marks, value)."""
_FORMATS = 32
"""Format versions are below this, so that other bytes are not taken for a later tpstream's."""


class Newer(TpstreamError):
    """A stored value is of a later tpstream: reading past it would overwrite what it says."""


class Foreign(TpstreamError):
    """Stored bytes that are no value of ours."""


class Head(NamedTuple):
    """What is known of a stored value without decoding it."""

    stamp: int
    due: int
    """The partition's clock, ms, at which it wants attention, or ASKED or NEVER. Of format 1: not known, 0."""
    life: Life
    """The life in which its marks mean something."""


def stamp(epoch: int, checkpoint: int) -> int:
    """The stamp of what an owner writes in its checkpoint of that number."""
    return epoch << 32 | checkpoint


def pack(stamp: int, due: int, life: bytes, body: bytes) -> bytes:
    """A stored value; `body` is msgpack of marks and value."""
    return _HEAD.pack(FORMAT, stamp, due, life) + body


def marker(stamp: int, owner: bytes, settled_at: int = 0) -> bytes:
    """What an owner writes under OWNER as it begins; `owner` tells two of the same epoch apart.

    `settled_at`: values of an earlier life are in this changelog, as they were then (wall clock, ms); 0: none are.
    """
    return pack(stamp, settled_at or NEVER, NO_LIFE, owner)


def settled_in(marker: bytes) -> int:
    """The `settled_at` of a marker."""
    at = head(marker).due
    return 0 if at == NEVER else at


def tombstone_header(stamp: int) -> tuple[tuple[str, bytes], ...]:
    """The headers of a deletion: it has no value that could carry its stamp."""
    return (("tp-stamp", _STAMP.pack(FORMAT, stamp)),)


def stamp_of(value: bytes | None, headers: object) -> int:
    """The stamp of a changelog record. Raises Newer, or Foreign for bytes that are not ours."""
    if value is None:
        for name, data in headers:  # type: ignore[attr-defined]
            if name == "tp-stamp" and len(data) == _STAMP.size:
                return int(_STAMP.unpack(data)[1])
        return 0  # of format 1
    if value[:1] == CURRENT and len(value) >= HEAD_BYTES:
        return int(unpack_stamp(value)[1])
    return head(value).stamp


def head(data: bytes) -> Head:
    """The head of a stored value. Raises Newer, or Foreign for bytes that are not ours."""
    if data[:1] == CURRENT and len(data) >= HEAD_BYTES:
        _, stamp, due, life = _HEAD.unpack_from(data)
        return Head(stamp, due, life)
    if data[:2] == _OLD:
        return Head(0, 0, NO_LIFE)
    if data[:1] and FORMAT < data[0] < _FORMATS and len(data) >= HEAD_BYTES:
        raise Newer(f"stored format {data[0]} is newer than this tpstream ({FORMAT})")
    raise Foreign(f"stored value of {len(data)} bytes begins {data[:4].hex()}: not written by tpstream")


def body(data: bytes) -> tuple[Life, bytes]:
    """The life of a stored value's marks, and msgpack of its marks and value."""
    life = head(data).life
    if data[:2] != _OLD:
        return life, data[HEAD_BYTES:]
    try:
        _, own, marks, value = msgspec.msgpack.decode(data, type=tuple[int, bytes, msgspec.Raw, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise Foreign(f"a stored value cannot be read: {error}") from None
    return Life(own), msgspec.msgpack.encode((marks, value))


def restamp(data: bytes, stamp: int) -> bytes:
    """The same value, written anew by another owner; its marks keep their life."""
    if data[:1] == CURRENT:
        _, _, due, life = _HEAD.unpack_from(data)
        return _HEAD.pack(FORMAT, stamp, due, life) + data[HEAD_BYTES:]
    life, content = body(data)
    return pack(stamp, 0, life, content)

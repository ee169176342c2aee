"""What crosses the pipe between a worker and its script process: length, then msgpack.

Request: the sources that the process may not know yet, and the calls as
[script, entry, msg, topic]. Replies: first an empty one, when the process reads; then lists
of [status, text], in order; a request has ended when all calls are answered or one of them is an offence.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgspec

LENGTH = struct.Struct("<I")


class Request(NamedTuple):
    """Calls to run, in order."""

    sources: dict[str, str]
    calls: list[tuple[str, bytes, bytes, bytes]]
    one_by_one: bool = False
    """Answer each call at once: one of them is thought to crash the process."""


Reply = list[tuple[int, bytes]]
"""Status and text of the next calls."""

_encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """The bytes of one message on the pipe."""
    body = _encode(message)
    return LENGTH.pack(len(body)) + body

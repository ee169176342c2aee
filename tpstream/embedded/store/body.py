"""A request's body: unpacked as it comes, kept in memory that has a bound, read by the engine as a file."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
from backports import zstd

from tpstream.embedded.store.faults import BAD_REQUEST, TOO_LARGE, fault

MAX_BODY = 128_000_000
"""Bytes of one body, unpacked. An insert of 100,000 rows has about 10 MB."""
MAX_HEAD = 262_144
"""Bytes in which the statement must end: ClickHouse's own max_query_size."""

_INSERT = re.compile(rb"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*INSERT\b", re.IGNORECASE | re.DOTALL)
# Where the statement of an insert ends and its rows begin: blanks and one newline after the
# name of the format. Strings, names and comments are passed over; where VALUES or SELECT
# comes first the rows are part of the statement.
_SPLIT = re.compile(
    rb"""'(?:\\.|[^'\\])*' | `(?:\\.|[^`\\])*` | "(?:\\.|[^"\\])*" | --[^\n]* | /\*.*?\*/
    | (?P<rows>\b(?:VALUES|SELECT|WITH)\b)
    | \bFORMAT\s+(?:(?P<values>Values\b)|(?P<format>[A-Za-z][A-Za-z0-9]*)[ \t\r]*(?:\n|$))""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)


class Body:
    """Takes the pieces of a body in; `descriptor` then is an anonymous file in memory.

    An anonymous file (memfd) has no name, so nothing is left over when the process is killed.
    """

    def __init__(self, encoding: str) -> None:
        self._frames = _unpacker(encoding)
        self.descriptor = os.memfd_create("tpstream-insert")
        self.size = 0

    def feed(self, piece: bytes) -> None:
        """Take a piece as it came over the wire. Raises Fault where it is too much or torn."""
        self._write(self._frames.take(piece) if self._frames else piece)

    def end(self) -> None:
        """The body is whole. Raises Fault where its compression says otherwise."""
        if self._frames:
            self._frames.end()

    def _write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > MAX_BODY:
            raise fault(TOO_LARGE, f"The body is larger than {MAX_BODY} bytes; send it in several inserts")
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def head(self) -> bytes:
        """The beginning of the body, at most MAX_HEAD bytes."""
        return os.pread(self.descriptor, MAX_HEAD, 0)

    def all(self) -> bytes:
        """The whole body."""
        return os.pread(self.descriptor, self.size, 0)

    def cut(self, start: int) -> None:
        """Drop the first `start` bytes: the statement, before its rows."""
        if not start:
            return
        rest = os.memfd_create("tpstream-insert")
        at = start
        while at < self.size:
            at += os.sendfile(rest, self.descriptor, at, self.size - at)
        os.close(self.descriptor)
        self.descriptor = rest
        self.size -= start

    @property
    def path(self) -> str:
        """The name under which this process can open the body."""
        return f"/proc/self/fd/{self.descriptor}"

    def __enter__(self) -> Body:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)


def is_insert(statement: bytes) -> bool:
    """Whether a statement is an INSERT. Only decides how rows are handed over, never what is allowed."""
    return _INSERT.match(statement) is not None


def split_insert(statement: bytes) -> tuple[bytes, str, int] | None:
    """An insert's statement without its FORMAT, the format, and where its rows begin; None: no FORMAT."""
    for found in _SPLIT.finditer(statement):
        if found["rows"] or found["values"]:
            return None
        if found["format"]:
            return statement[: found.start()], found["format"].decode(), found.end()
    return None


class _Frames:
    """Unpacks compressed frames one after the other: clients begin a new one per block."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._flow: Any = None

    def take(self, piece: bytes) -> bytes:
        out = []
        try:
            while piece:
                if self._flow is None:
                    self._flow = self._new()
                out.append(self._flow.decompress(piece))
                piece = b""
                if self._flow.eof:
                    piece = self._flow.unused_data or b""
                    self._flow = None
        except Exception as error:
            raise fault(BAD_REQUEST, f"The body cannot be unpacked: {error}") from None
        return b"".join(out)

    def end(self) -> None:
        if self._flow is not None:
            raise fault(BAD_REQUEST, "The compressed body is cut off")


def _unpacker(encoding: str) -> _Frames | None:
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "deflate"):
        # 47: zlib's window, with zlib's and gzip's header told apart by itself.
        return _Frames(lambda: zlib.decompressobj(47))
    if encoding == "lz4":
        return _Frames(lz4.frame.LZ4FrameDecompressor)
    if encoding == "zstd":
        return _Frames(zstd.ZstdDecompressor)
    raise fault(BAD_REQUEST, f"Unknown Content-Encoding {encoding!r}; use gzip, deflate, lz4 or zstd")

"""What a route takes and returns: plain values, so that routes are tested without a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """A request, once the guard has let it in: the parts of its path, its query and its body."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    near: bool = False
    """Whether who calls is a process of this machine."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, bytes and their type."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Route = Callable[[Call], Awaitable[Reply]]


class BadRequest(Exception):
    """A parameter is wrong: which one, and what it should be. Becomes a 400."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


def json_reply(value: Any, status: int = 200, *, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A JSON answer; bytes in it become text (what is not UTF-8 is escaped), NaN becomes null."""
    return Reply(status, orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS), JSON, headers)


def error_reply(status: int, message: str, *, remedy: str = "", parameter: str = "") -> Reply:
    """An error as JSON: `error` (one line), and where there are such, `remedy` and `parameter`."""
    content = {"error": message}
    if remedy:
        content["remedy"] = remedy
    if parameter:
        content["parameter"] = parameter
    return json_reply(content, status)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return str(value)

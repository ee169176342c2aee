"""What a command is on the wire, before a script has its say (docs/protocol.md). Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from tpstream.messages import CommandRequest
from tpstream.uplink.dialects import valid_number

_ID = re.compile(r"[0-9A-Za-z-]{1,36}")


class Limits(NamedTuple):
    """What holds for a command that does not say otherwise."""

    timeout: int
    """ms."""
    attempts: int
    expiry: int
    """ms."""


def topic_of(device: str, id: str) -> str:
    """The MQTT topic of a command."""
    return f"devices/command/{device}/{id}"


def objection(request: CommandRequest) -> str:
    """Why a request can never be sent, in a line; empty: it can."""
    if not _ID.fullmatch(request.id):
        return f"the id {request.id[:50]!r} is not 1 to 36 of the characters 0-9, A-Z, a-z and -"
    if not valid_number(request.device):
        return f"{request.device[:150]!r} is no device number"
    if not request.method:
        return "the command has no method"
    if request.params:
        try:
            msgspec.json.decode(request.params)
        except (msgspec.DecodeError, RecursionError):
            return "params are not JSON"
    return ""


def json_of(request: CommandRequest) -> bytes:
    """`{"method":…,"params":…}`, `params` absent where there are none. The request is one without objection."""
    body: dict[str, object] = {"method": request.method}
    if request.params:
        body["params"] = msgspec.Raw(request.params.encode())
    return msgspec.json.encode(body)


def timeout_of(request: CommandRequest, limits: Limits) -> int:
    """How long an answer is waited for, ms."""
    if request.timeout is None or not request.timeout > 0:
        return limits.timeout
    return max(1, round(min(request.timeout, 1e9) * 1000))


def attempts_of(request: CommandRequest, limits: Limits) -> int:
    """How often it may be sent."""
    return max(1, limits.attempts if request.attempts is None else request.attempts)


def expiry_of(request: CommandRequest, limits: Limits) -> int:
    """When it is of no use any more, ms."""
    return request.created_at + limits.expiry if request.expires_at is None else request.expires_at

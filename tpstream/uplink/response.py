"""A device's answer to a command, attribute set or get (docs/protocol.md)."""

from __future__ import annotations

from tpstream.messages import Response
from tpstream.uplink.payload import MAX_NESTING, NotJson, TooDeep, parse_exactly, write
from tpstream.uplink.values import Problem

_RESULTS = {0: 0, 1: 1, "0": 0, "1": 1}


def decode(data: bytes, device: str, message_id: str, delivered: int) -> Response | Problem:
    """The answer that a payload is; a Problem where it is none. Never raises.

    `result` 0 or 1, as number or text, is what it says; an object that says anything else,
    or nothing, is a refusal, its text kept.
    """
    if not message_id:
        return Problem("message_id", "the response's topic names no message id")
    if not data:
        return Problem("empty", "the payload is empty")
    try:
        value = parse_exactly(data)
    except TooDeep:
        return Problem("nesting", f"JSON nested deeper than {MAX_NESTING}")
    except NotJson as error:
        return Problem("response", f"the response is not JSON: {error}")
    if not isinstance(value, dict):
        return Problem("response", 'the response is no object {"result":…}')
    said = value.get("result")
    result = _RESULTS.get(said, 1) if type(said) in (int, float, str) else 1
    return Response(device, message_id, "response", result, write(value), delivered)

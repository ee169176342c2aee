"""Bytes to JSON values without losing anything (docs/protocol.md).

orjson reads what it can represent; two things need a second reading, by the standard
library: integers beyond 64 bits, whose digits orjson rounds away, and numbers beyond a
double, which it refuses. Lone surrogates are mended in the text before either.
"""

from __future__ import annotations

import json
import re
from math import isfinite
from typing import Any

import orjson

MAX_NESTING = 128
"""Brackets open at once (docs/protocol.md)."""


class NotJson(Exception):
    """The bytes are no JSON; `str(error)` says why in a few words."""


class TooDeep(Exception):
    """JSON nested deeper than MAX_NESTING."""


class Digits(str):
    """The digits of a number that no double can hold."""

    __slots__ = ()


_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.S
)
_ROUNDED = re.compile(rb"[0-9]e\+?[0-9]")


def parse(data: bytes) -> Any:
    """The JSON value, fast. Integers beyond 64 bits come as doubles: see `parse_exactly`.

    Raises NotJson, TooDeep.
    """
    try:
        value = orjson.loads(data)
    except ValueError:
        return parse_exactly(data)
    if len(data) > 2 * MAX_NESTING:
        _check_nesting(data, value)
    return value


def parse_exactly(data: bytes) -> Any:
    """The JSON value with every digit: integers as int, numbers beyond a double as Digits.

    Raises NotJson, TooDeep.
    """
    if b"\\u" in data:
        data = _SURROGATE.sub(_mend, data)
    try:
        text = data.decode()
        value = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_refuse)
    except RecursionError:
        raise TooDeep from None
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise NotJson(str(error)) from None
    _check_nesting(data, value)
    return value


def was_rounded(written: bytes) -> bool:
    """Whether orjson's text of a value may come from an integer whose digits it rounded away."""
    return _ROUNDED.search(written) is not None


def write(value: Any) -> str:
    """The compact JSON text of what `parse_exactly` returned, digits kept."""
    if isinstance(value, Digits):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{write(k)}:{write(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return orjson.dumps(value).decode()


def _mend(match: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if match[1] else match[0]


def _integer(text: str) -> int | Digits:
    return int(text) if len(text) <= 310 else Digits(text)  # a double ends at 309 digits


def _number(text: str) -> float | Digits:
    value = float(text)
    return value if isfinite(value) else Digits(text)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_nesting(data: bytes, value: Any) -> None:
    """Raise TooDeep; walks the value only where there are brackets enough."""
    if data.count(b"[") + data.count(b"{") <= MAX_NESTING:
        return
    level, depth = [value], 0
    while level:
        containers = [v for v in level if isinstance(v, (dict, list))]
        depth += bool(containers)
        if depth > MAX_NESTING:
            raise TooDeep
        level = [inner for v in containers for inner in (v.values() if isinstance(v, dict) else v)]

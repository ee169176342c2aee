"""JSON values to points (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from tpstream.messages import Point, TimeFrom
from tpstream.uplink import payload

MAX_KEY_BYTES = 256
_EXACT: Final = 2**53
_ROUNDED: Final = 2.0**63
"""A float of this size or more, as orjson reads it, may have been an integer with more digits."""


class Problem(NamedTuple):
    """Why a part of a message, or all of it, is a dead letter."""

    reason: str
    """One of the words under "Dead letters" in docs/protocol.md."""
    detail: str
    """One line for a person."""
    element: int = 0
    """The index of a history's element; 0 elsewhere."""


class NeedsDigits(Exception):
    """A value may have lost digits: parse exactly and come again."""


def points_of(
    values: Mapping[str, Any],
    ts: int,
    ts_from: TimeFrom,
    into: list[Point],
    problems: list[Problem],
    element: int = 0,
    exact: bool = False,
) -> None:
    """Append the points of an object's keys, and a problem for each key that is too long.

    `exact` says that the values come from `parse_exactly`. Raises NeedsDigits where they
    do not, and should.
    """
    for key, value in values.items():
        if len(key) > 64 and len(key.encode()) > MAX_KEY_BYTES:
            problems.append(Problem("key", f"key {key[:40]!r}… is longer than {MAX_KEY_BYTES} bytes", element))
        elif type(value) is float and (-_ROUNDED < value < _ROUNDED or exact):
            into.append(Point(key, ts, value, "", "number", ts_from))
        elif type(value) is int and -_EXACT <= value <= _EXACT:
            into.append(Point(key, ts, float(value), "", "number", ts_from))
        else:
            into.append(_other(key, value, ts, ts_from, exact))


def _other(key: str, value: Any, ts: int, ts_from: TimeFrom, exact: bool) -> Point:
    """A point of anything but the everyday numbers."""
    if value is True or value is False:
        return Point(key, ts, float(value), "", "bool", ts_from)
    if isinstance(value, str):
        return Point(key, ts, None, str(value), "text", ts_from)
    if isinstance(value, int):
        try:
            return Point(key, ts, float(value), str(value), "number", ts_from)
        except OverflowError:  # beyond a double
            return Point(key, ts, None, str(value), "text", ts_from)
    if isinstance(value, float):
        raise NeedsDigits
    if exact:
        return Point(key, ts, None, payload.write(value), "json", ts_from)
    written = orjson.dumps(value)
    if payload.was_rounded(written):
        raise NeedsDigits
    return Point(key, ts, None, written.decode(), "json", ts_from)

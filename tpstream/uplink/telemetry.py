"""A telemetry payload to points (docs/protocol.md): three forms, and what is none of them.

>>> decode(b'{"temp":21.5}', 1700000000000, Limits()).points
(Point(key='temp', ts=1700000000000, number=21.5, text='', kind='number', ts_from='delivery'),)
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from tpstream.messages import Point, TimeFrom
from tpstream.uplink.payload import MAX_NESTING, NotJson, TooDeep, parse, parse_exactly
from tpstream.uplink.times import BadTime, Limits, milliseconds
from tpstream.uplink.values import NeedsDigits, Problem, points_of

RAW_KEY = "_raw"
_DELIVERY: TimeFrom = "delivery"
_DEVICE: TimeFrom = "device"


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """What a payload holds: points, in order; what is too old; and what is a dead letter."""

    points: tuple[Point, ...]
    problems: tuple[Problem, ...] = ()
    late: tuple[Point, ...] = ()
    """Older than the retention: for the late topic only."""


def decode(data: bytes, delivered: int, limits: Limits, script: bool = False) -> Decoded:
    """The points of one telemetry payload, delivered at that time (ms). Never raises.

    `script`: the payload is a script's result, which must be JSON in one of the forms;
    without it, what is none becomes the point `_raw`.
    """
    if not data:
        return _refused("empty", "the payload is empty")
    try:
        try:
            return _decode(parse(data), delivered, limits, script, False)
        except NeedsDigits:
            return _decode(parse_exactly(data), delivered, limits, script, True)
    except TooDeep:
        return _refused("nesting", f"JSON nested deeper than {MAX_NESTING}")
    except NotJson as error:
        if script:
            return _refused("json", f"the script's result is not JSON: {error}")
        return _raw(_text(data), delivered, False)


def _decode(value: Any, delivered: int, limits: Limits, script: bool, exact: bool) -> Decoded:
    if type(value) is dict:  # nearly all; and nearly all of these are points and nothing else
        points: list[Point] = []
        problems: list[Problem] = []
        late: list[Point] = []
        values = _values_with_time(value) if "values" in value else None
        if values is None:
            points_of(value, delivered, _DELIVERY, points, problems, 0, exact)
        else:
            _element(value, values, 0, delivered, limits, exact, points, problems, late)
        if problems or late:
            return Decoded(tuple(points), tuple(problems), tuple(late))
        return Decoded(tuple(points))
    if type(value) is list and _is_history(value):
        return _history(value, delivered, limits, exact)
    if script:
        return _refused("form", "the script's result is none of the forms of telemetry")
    return _raw(value, delivered, exact)


def _values_with_time(value: dict[str, Any]) -> dict[str, Any] | None:
    """The `values` of the form with time; None where it is not that form."""
    values = value.get("values")
    if type(values) is dict and (len(value) == 1 or (len(value) == 2 and "ts" in value)):
        return values
    return None


def _is_history(value: list[Any]) -> bool:
    """An empty array, or one in which something means to be an element with time."""
    return not value or any(type(element) is dict and "values" in element for element in value)


def _history(elements: list[Any], delivered: int, limits: Limits, exact: bool) -> Decoded:
    points: list[Point] = []
    problems: list[Problem] = []
    late: list[Point] = []
    for index, element in enumerate(elements):
        values = _values_with_time(element) if type(element) is dict else None
        if values is None:
            detail = f'element {index} is not of the form {{"ts":…,"values":{{…}}}}'
            problems.append(Problem("form", detail, index))
        else:
            _element(element, values, index, delivered, limits, exact, points, problems, late)
    return Decoded(tuple(points), tuple(problems), tuple(late))


def _element(
    element: dict[str, Any],
    values: dict[str, Any],
    index: int,
    delivered: int,
    limits: Limits,
    exact: bool,
    points: list[Point],
    problems: list[Problem],
    late: list[Point],
) -> None:
    """Append what one element with time holds to where it belongs."""
    given = element.get("ts")
    if given is None:
        points_of(values, delivered, _DELIVERY, points, problems, index, exact)
        return
    try:
        ts = milliseconds(given)
    except BadTime as error:
        problems.append(Problem("time", str(error), index))
        return
    if ts > delivered + limits.ahead_ms:
        hours = (ts - delivered) / 3_600_000
        problems.append(Problem("clock", f"ts {given} is {hours:.1f} hours ahead of its delivery", index))
        return
    old = limits.retention_ms and ts < delivered - limits.retention_ms
    points_of(values, ts, _DEVICE, late if old else points, problems, index, exact)


def _raw(value: Any, delivered: int, exact: bool) -> Decoded:
    points: list[Point] = []
    points_of({RAW_KEY: value}, delivered, _DELIVERY, points, [], 0, exact)
    return Decoded(tuple(points))


def _text(data: bytes) -> str:
    """The text of bytes, or their base64 where they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode()


def _refused(reason: str, detail: str) -> Decoded:
    return Decoded((), (Problem(reason, detail),))

"""What a window needs of a user's JSON object: its time and the values that are folded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from tpstream.errors import ConfigurationError
from tpstream.messages import Point
from tpstream.windows.definition import Window

if TYPE_CHECKING:
    from tpstream.bus.topics import Topic


BEYOND = 10**14
"""No time is so far ahead, ms: the year 5138, as for telemetry (docs/protocol.md)."""


class OneField:
    """For windows over one field: nothing else of the object is read.

    `decode` gives an object with `value` (whatever stands there) and `time` (ms, or None).
    """

    def __init__(self, key: str, time: str) -> None:
        self.key = key
        fields: list[tuple[str, Any, Any]] = [("value", Any, None)]
        names = {"value": key}
        namespace: dict[str, Any] = {}
        if time:
            fields.append(("time", Annotated[int, msgspec.Meta(ge=0, lt=BEYOND)] | None, None))
            names["time"] = time
        else:
            namespace["time"] = None
        reading = msgspec.defstruct("Reading", fields, rename=names, namespace=namespace, gc=False)
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(reading).decode


class ManyFields:
    """For windows over several fields, or each (`*`)."""

    def __init__(self, keys: Iterable[str], time: str) -> None:
        self._keys = None if "*" in (named := set(keys)) else named
        self._time = time
        self.decode: Callable[[bytes], dict[str, Any]] = msgspec.json.Decoder(dict[str, Any]).decode

    def points(self, message: dict[str, Any], timestamp: int) -> Sequence[Point]:
        """The object's points, of the record's `timestamp` (ms) where it has no time.

        At least one, as time passes with an object that has nothing to fold, too.
        Raises msgspec.ValidationError.
        """
        ts = message.get(self._time) if self._time else None
        if ts is None:
            ts = timestamp
        elif type(ts) is not int or not 0 <= ts < BEYOND:
            raise msgspec.ValidationError(
                f"Expected `int | null` from 0 to 10^14, got {ts!r:.40} - at `$.{self._time}`"
            )
        keys = message if self._keys is None else self._keys & message.keys()
        points = [Point(key, ts, as_number(message[key])) for key in sorted(keys) if key != self._time]
        return points or [Point("", ts)]


def as_number(value: Any) -> float | None:
    """The value as a number: booleans count as 0 and 1; None: it is none."""
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def fields_of(windows: Sequence[Window]) -> OneField | ManyFields:
    """What the windows of one topic, which have the same field of time, read."""
    keys = {window.key for window in windows}
    if len(keys) == 1 and "*" not in keys:
        return OneField(keys.pop(), windows[0].time)
    return ManyFields(keys, windows[0].time)


def check(window: Window, topic: Topic[Any], beside: Iterable[Window]) -> None:
    """Whether the topic's records can have what a window asks for. Raises ConfigurationError if not.

    `beside` are the other windows of the topic.
    """
    where = f"window {window.name!r}: topic {topic.name}"
    if topic.name.startswith("tp."):
        raise ConfigurationError(f"{where} is tpstream's own; leave out topic= to fold telemetry")
    if topic.type is bytes:
        raise ConfigurationError(f"{where} has records of bytes; declare it with a msgspec.Struct or dict")
    if window.key == window.time:
        raise ConfigurationError(f"window {window.name!r}: key and time are both {window.key!r}")
    for other in beside:
        if other.time != window.time:
            raise ConfigurationError(
                f"{where}: its time is {window.time!r}, and {other.time!r} for window {other.name!r}; "
                "a device has one watermark in a topic"
            )
    if isinstance(topic.type, type) and issubclass(topic.type, msgspec.Struct):
        if topic.type.__struct_config__.array_like:
            raise ConfigurationError(f"{where} has records that are arrays; windows read objects")
        known = [field.encode_name for field in msgspec.structs.fields(topic.type)]
        for what, name in (("key", window.key), ("time", window.time)):
            if name and name != "*" and name not in known:
                raise ConfigurationError(
                    f"{where} has no field {name!r} ({what}); {topic.type.__name__} has {', '.join(known)}"
                )

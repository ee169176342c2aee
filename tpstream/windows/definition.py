"""What a window is: which key, how long, how often, which aggregate, how long it waits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tpstream.errors import ConfigurationError
from tpstream.windows.aggregates import NAMES

UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

MAX_HOPS = 1_000
"""Windows that a point may belong to: each closed window is put together from so many parts."""


@dataclass(frozen=True, slots=True)
class Window:
    """An event-time window per device and key. All times in ms.

    Sessions, whose ends depend on their points, would be another class beside this one.
    """

    name: str
    key: str
    """The telemetry key that is folded; `*`: each key by itself."""
    size: int
    aggregate: str
    lateness: int
    """How long after its end (by the device's watermark) a window still takes points."""
    idle: int
    """A device silent for this long, by the partition's clock, has its windows closed."""
    hop: int
    """How far apart windows begin; `size` is a multiple of it. As long as `size`: tumbling."""
    topic: str = ""
    """The topic of plain JSON objects that it reads; empty: telemetry."""
    time: str = ""
    """The field of those objects with the event's time, ms; empty: the time is the record's."""


def milliseconds(text: str | int | float) -> int:
    """A duration: a number of seconds, or `10s`, `500ms`, `5m`, `1h`, `1d`."""
    if isinstance(text, int | float):
        return int(text * 1000)
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text.strip())
    if not match:
        raise ConfigurationError(f"{text!r} is not a duration; write it like 10s, 500ms, 5m, 1h or 1d")
    return int(float(match[1]) * UNITS[match[2]])


def window(
    name: str,
    *,
    key: str,
    size: str | int | float,
    aggregate: str = "mean",
    lateness: str | int | float = 0,
    idle: str | int | float = 60,
    hop: str | int | float | None = None,
    topic: str = "",
    time: str = "",
) -> Window:
    """Make a window's definition; ConfigurationError names the field that is wrong."""
    if aggregate not in NAMES:
        raise ConfigurationError(f"window {name!r}: aggregate {aggregate!r} is none of {', '.join(NAMES)}")
    length = _duration(name, "size", size)
    step = length if hop is None else _duration(name, "hop", hop)
    if length <= 0:
        raise ConfigurationError(f"window {name!r}: size must be positive")
    if not 0 < step <= length or length % step:
        raise ConfigurationError(
            f"window {name!r}: hop {hop!r} must divide size {size!r} into whole parts; 10s hops by 1s, 2s, 5s or 10s"
        )
    if length // step > MAX_HOPS:
        raise ConfigurationError(
            f"window {name!r}: size {size!r} is {length // step} times hop {hop!r}, at most {MAX_HOPS}; hop further"
        )
    if time and not topic:
        raise ConfigurationError(f"window {name!r}: time {time!r} needs topic=; telemetry has its points' times")
    waits = _duration(name, "lateness", lateness)
    silence = _duration(name, "idle", idle)
    return Window(name, key, length, aggregate, waits, silence, step, topic, time)


def _duration(name: str, field: str, text: str | int | float) -> int:
    try:
        return milliseconds(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"window {name!r}: {field}: {error}") from None

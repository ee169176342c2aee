"""What a window is: which key, how long, which aggregate, how long it waits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tpstream.errors import ConfigurationError

UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
AGGREGATES = ("mean", "sum", "min", "max", "count", "first", "last")


@dataclass(frozen=True, slots=True)
class Window:
    """A tumbling event-time window per device and key. All times in ms."""

    name: str
    key: str
    """The telemetry key that is folded; `*`: each key by itself."""
    size: int
    aggregate: str
    lateness: int
    """How long after its end (by the device's watermark) a window still takes points."""
    idle: int
    """A device silent for this long, by the partition's clock, has its windows closed."""


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
) -> Window:
    """Make a window's definition; ConfigurationError names the field that is wrong."""
    if aggregate not in AGGREGATES:
        raise ConfigurationError(f"window {name!r}: aggregate {aggregate!r} is none of {', '.join(AGGREGATES)}")
    made = Window(name, key, milliseconds(size), aggregate, milliseconds(lateness), milliseconds(idle))
    if made.size <= 0:
        raise ConfigurationError(f"window {name!r}: size must be positive")
    return made

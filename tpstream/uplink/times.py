"""A device's own time (docs/protocol.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tpstream.settings import Settings

_SECONDS_BELOW = 10**11
_MILLISECONDS_BELOW = 10**14
_DIGITS = re.compile(r"[0-9]+(\.[0-9]+)?", re.ASCII)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Limits:
    """What times are taken, ms relative to delivery."""

    ahead_ms: int = DAY_MS
    """Points further ahead are dead letters `clock`."""
    retention_ms: int = 0
    """Older points go to the late topic only; 0: none is too old."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings say."""
        return cls(round(settings.clock_ahead_hours * HOUR_MS), round(settings.retention_days * DAY_MS))


class BadTime(Exception):
    """A `ts` that is none; `str(error)` says what it was."""


def milliseconds(ts: Any) -> int:
    """A device's `ts` (seconds, milliseconds, with fractions, or as text) in integer ms.

    Raises BadTime. A negative one is bad: no device has a clock of before 1970.
    """
    if type(ts) is int and _SECONDS_BELOW <= ts < _MILLISECONDS_BELOW:  # nearly all
        return ts
    number: float
    if type(ts) in (int, float):
        number = ts
    elif isinstance(ts, str) and _DIGITS.fullmatch(ts):
        number = float(ts)
    else:
        raise BadTime(f"ts {_brief(ts)} is no time")
    if 0 <= number < _SECONDS_BELOW:
        return round(number * 1000)
    if _SECONDS_BELOW <= number < _MILLISECONDS_BELOW:
        return round(number)
    raise BadTime(f"ts {_brief(ts)} is outside 0 to 10^14")


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"

"""What is remembered of a device's windows: the value of the table `windows`, key: device.

Everything in it is replaced, never changed in place: an undone batch puts the old value back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from tpstream.windows.aggregates import Accumulator
from tpstream.windows.definition import Window

MAX_OPEN = 10_000
"""Windows of one device open at once. Beyond it the earliest are closed."""

MAX_IDLE_SERIES = 200
"""Series of one device up to which those without an open window are kept: they know what was closed."""


class Open(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A window that still takes points."""

    start: int
    end: int
    count: int
    accumulator: Accumulator


class Series(msgspec.Struct, frozen=True, array_like=True):
    """The windows of one definition and one key."""

    size: int
    aggregate: str
    floor: int = -(1 << 62)
    """Windows that end at or before this are closed, whatever the watermark says."""
    open: tuple[Open, ...] = ()
    """By rising start."""


class DeviceWindows(msgspec.Struct, frozen=True, array_like=True):
    """A device's watermark and windows. Times in ms."""

    watermark: int
    heard: int
    """The partition's clock when the device last said something."""
    definitions: str = ""
    """The digest of the definitions that the series were made by."""
    closes: int | None = None
    """The watermark at which the next window closes; None: none is open."""
    due: int | None = None
    """The partition's clock at which to look whether the device has been silent; never too late."""
    series: dict[str, dict[str, Series]] = {}
    """By window name, then key."""


class Definitions(NamedTuple):
    """The windows in force, arranged for folding."""

    by_name: dict[str, Window]
    by_key: dict[str, tuple[Window, ...]]
    """For each key that a definition names: those, and the ones for every key."""
    wild: tuple[Window, ...]
    """The definitions for every key (`*`)."""
    digest: str

    @classmethod
    def of(cls, windows: Iterable[Window]) -> Definitions:
        """Arrange definitions; their names differ."""
        known = sorted(windows, key=lambda w: w.name)
        wild = tuple(w for w in known if w.key == "*")
        keys = {w.key for w in known} - {"*"}
        return cls(
            {w.name: w for w in known},
            {key: tuple(w for w in known if w.key in (key, "*")) for key in keys},
            wild,
            hashlib.blake2b(repr(known).encode(), digest_size=8).hexdigest(),
        )

"""One measured figure, as a JSON object on a line."""

from __future__ import annotations

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. `ratio`: value / peer's value, where the same was measured of a peer."""

    bench: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None
    cpu_us_per_message: float | dict[str, float] | None = None
    """Over all processes, or by process."""
    note: str = ""

    def line(self) -> str:
        """The JSON object."""
        return msgspec.json.encode(self).decode()

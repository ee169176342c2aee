"""What is sent for each table: its name in the store, and the ClickHouse type of each column.

The types are those that are cheapest to write and to send (measured: a String costs 100 to 130 ns
and its bytes, as LowCardinality 60 ns and one byte); ClickHouse converts them to the table's.
"""

from __future__ import annotations

from typing import NamedTuple

_TIME = "DateTime64(3, 'UTC')"
_FEW = "LowCardinality(String)"


class TableShape(NamedTuple):
    """A table that rows are inserted into; `columns` in the order of its class in `columns.py`."""

    name: str
    """The name that people read."""
    columns: tuple[tuple[str, str], ...]

    @property
    def rows(self) -> str:
        """The table behind the view of that name."""
        return f"{self.name}_rows"


def _shape(name: str, **columns: str) -> TableShape:
    return TableShape(name, tuple(columns.items()))


_SOURCE = {"source_life": _FEW, "source_partition": "UInt32", "source_offset": "UInt64", "source_index": "UInt32"}

TELEMETRY = _shape(
    "telemetry",
    device=_FEW,
    key=_FEW,
    ts=_TIME,
    ts_from=_FEW,
    kind=_FEW,
    number="Nullable(Float64)",
    text="String",
    received_at=_TIME,
    **_SOURCE,
)
WINDOWS = _shape(
    "windows",
    window=_FEW,
    device="String",
    key="String",
    start=_TIME,
    end=_TIME,
    aggregate=_FEW,
    value="Nullable(Float64)",
    count="UInt64",
    closed_at=_TIME,
)
ALARMS = _shape(
    "alarms",
    id="String",
    rule=_FEW,
    device="String",
    severity=_FEW,
    state=_FEW,
    started_at=_TIME,
    ended_at=f"Nullable({_TIME})",
    acknowledged_at=f"Nullable({_TIME})",
    value="Nullable(Float64)",
    details="String",
    version="UInt64",
)
COMMANDS = _shape(
    "commands",
    id="String",
    device="String",
    method="String",
    params="String",
    state=_FEW,
    created_at=_TIME,
    updated_at=_TIME,
    attempts="UInt32",
    result="String",
    source="String",
    version="UInt64",
)
DEAD_LETTERS = _shape(
    "dead_letters",
    id="String",
    ts=_TIME,
    device="String",
    stage=_FEW,
    reason=_FEW,
    topic="String",
    payload="String",
    detail="String",
    attempts="UInt32",
    source_life=_FEW,
    source_partition="Int64",
    source_offset="Int64",
    source_index="UInt32",
)
DEVICE_STATUS = _shape("device_status", device="String", online="Bool", ts=_TIME, reason=_FEW, **_SOURCE)

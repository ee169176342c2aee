"""The store as sinks: rows in memory until a flush has made them durable.

What is in doubt (a time-out, a cut connection, a store that was killed) is inserted again
with the same rows; the identity in each table's sorting key makes it one to every reader.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Sequence
from typing import Any

from clickhouse_connect.datatypes.registry import get_from_name
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, DataError

from tpstream.bus.position import Position
from tpstream.errors import Full, Rejected, Unavailable
from tpstream.observability import metrics
from tpstream.settings import Settings
from tpstream.storage import tables
from tpstream.storage.client import connect, reason, wait_for
from tpstream.storage.columns import Columns
from tpstream.storage.schema import migrate
from tpstream.storage.tables import TableShape

log = logging.getLogger(__name__)

# ClickHouse's codes that speak of the rows and not of the store: sending them again cannot help.
_DATA = frozenset({6, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 407, 691})
_UNWRITABLE = (DataError, struct.error, OverflowError, TypeError, ValueError, AttributeError, KeyError)

_INSERT = {
    # A long history touches any number of table partitions; ClickHouse refuses over 100 by default.
    "max_partitions_per_insert_block": "0",
    # Acknowledged means written.
    "async_insert": "0",
}


class TableSink:
    """Rows for one table. `rows` are columns of the table's class in `columns.py`."""

    def __init__(self, shape: TableShape, client: Any, tenant: str, bound: int) -> None:
        self.name = shape.name
        self.shape = shape
        self.bound = bound
        self.written = 0
        """Rows made durable since the start."""
        self._client = client
        self._tenant = tenant
        self._waiting: list[Columns] = []
        self._doubtful: tuple[list[Any], ...] = ()
        self._held = 0
        self._lock = asyncio.Lock()
        self._names = ["tenant", *(name for name, _ in shape.columns)]
        self._types = [get_from_name("LowCardinality(String)"), *(get_from_name(kind) for _, kind in shape.columns)]

    @property
    def pending(self) -> int:
        """Rows in memory: added, or in doubt."""
        return self._held

    def add(self, rows: Columns, positions: Sequence[Position] = ()) -> None:
        """Take columns into memory. Raises Full where they would pass the bound and others wait already."""
        count = len(rows[0])
        if not count:
            return
        if self._held and self._held + count > self.bound:
            raise Full(f"store: {self.name}: {self._held} rows wait already, {self.bound} are the bound")
        self._waiting.append(rows)
        self._held += count

    async def flush(self) -> None:
        """Return when all that was added is durable. Raises Unavailable (call again) or Rejected."""
        refused: list[dict[str, Any]] = []
        async with self._lock:
            await self._settle(refused)  # what an earlier call left in doubt, unchanged
            if self._waiting:
                chunks, self._waiting = self._waiting, []
                self._doubtful = tuple([v for part in parts for v in part] for parts in zip(*chunks, strict=True))
                await self._settle(refused)
        if refused:
            raise Rejected(f"store: {self.name} refused {len(refused)} rows", refused)

    async def _settle(self, refused: list[dict[str, Any]]) -> None:
        if self._doubtful:
            bad: list[dict[str, Any]] = []
            await self._take(self._doubtful, bad)
            count = len(self._doubtful[0])
            self._doubtful = ()
            self._held -= count
            self.written += count - len(bad)
            metrics.ROWS.labels(self.name).inc(count - len(bad))
            refused += bad

    async def _take(self, columns: Sequence[list[Any]], refused: list[dict[str, Any]]) -> None:
        """Insert; where ClickHouse refuses the data, halve until the rows that are at fault are found."""
        try:
            await self._insert(columns)
        except _Refusal as refusal:
            count = len(columns[0])
            if count == 1:
                row = {name: column[0] for name, column in zip(self._names[1:], columns, strict=True)}
                log.warning("store: %s refused a row: %s", self.name, refusal)
                refused.append({"table": self.name, "error": str(refusal), **row})
                return
            half = count // 2
            await self._take([column[:half] for column in columns], refused)
            await self._take([column[half:] for column in columns], refused)

    async def _insert(self, columns: Sequence[list[Any]]) -> None:
        try:
            await self._client.insert(
                self.shape.rows,
                [[self._tenant] * len(columns[0]), *columns],
                column_names=self._names,
                column_types=self._types,
                column_oriented=True,
                settings=_INSERT,
            )
        except _UNWRITABLE as error:
            raise _Refusal(f"cannot be written as {self.shape.rows}: {error}") from None
        except DatabaseError as error:
            if getattr(error, "code", None) in _DATA:
                raise _Refusal(reason(error)) from None
            raise Unavailable(f"store: {self.name} cannot be written: {reason(error)}") from None
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise Unavailable(f"store: {self.name} cannot be written: {reason(error)}") from None

    async def close(self) -> None:
        """Drop what was not flushed. The connection belongs to Store."""
        self._waiting, self._doubtful, self._held = [], (), 0


class _Refusal(Exception):
    """The rows, not the store, are why an insert failed."""


class Store:
    """The sinks of all tables over one connection."""

    def __init__(self, client: Any, settings: Settings) -> None:
        def sink(shape: TableShape) -> TableSink:
            return TableSink(shape, client, settings.tenant, settings.store_rows * 2)

        self._client = client
        self.telemetry = sink(tables.TELEMETRY)
        self.windows = sink(tables.WINDOWS)
        self.alarms = sink(tables.ALARMS)
        self.commands = sink(tables.COMMANDS)
        self.dead_letters = sink(tables.DEAD_LETTERS)
        self.device_status = sink(tables.DEVICE_STATUS)
        self.sinks: tuple[TableSink, ...] = (
            self.telemetry,
            self.windows,
            self.alarms,
            self.commands,
            self.dead_letters,
            self.device_status,
        )

    @classmethod
    async def connect(cls, settings: Settings) -> Store:
        """Wait for the store, saying so once, bring its tables up to date, and open the sinks.

        Raises TpstreamError where its tables are newer than this tpstream.
        """
        client = await wait_for(settings, connect)
        try:
            await wait_for(settings, lambda _: migrate(client))
        except BaseException:
            await client.close()
            raise
        return cls(client, settings)

    async def close(self) -> None:
        """Close all sinks and the connection."""
        for sink in self.sinks:
            await sink.close()
        await self._client.close()

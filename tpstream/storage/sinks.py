"""The store as sinks: rows in memory until a flush has made them durable.

What is in doubt (a time-out, a cut connection, a store that was killed) is inserted again
with the same rows; the identity in each table's sorting key makes it one to every reader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from tpstream.bus.position import Position
from tpstream.errors import Full, Rejected, Unavailable
from tpstream.observability import metrics
from tpstream.settings import Settings
from tpstream.storage import tables
from tpstream.storage.client import connect, is_local, reason, wait_for
from tpstream.storage.native import Block, Writer
from tpstream.storage.schema import migrate
from tpstream.storage.tables import TableShape

log = logging.getLogger(__name__)

# ClickHouse's codes that speak of the rows and not of the store: sending them again cannot help.
_DATA = frozenset({6, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 407, 691})

_INSERT = {
    # A long history touches any number of table partitions; ClickHouse refuses over 100 by default.
    "max_partitions_per_insert_block": "0",
    # Acknowledged means written.
    "async_insert": "0",
}
_PIECE = 262_144
"""Bytes of an insert that are handed to the connection at once."""


class TableSink:
    """Rows for one table, in blocks as `columns.py` makes them."""

    def __init__(self, shape: TableShape, client: Any, tenant: str, bound: int, *, packed: bool = False) -> None:
        self.name = shape.name
        self.shape = shape
        self.bound = bound
        self.written = 0
        """Rows made durable since the start."""
        self._client = client
        self._packed = packed
        self._writer = Writer(shape.columns, tenant)
        self._waiting: list[Block] = []
        self._doubtful: list[Block] = []
        self._body = b""
        """The insert of `_doubtful`, once it was tried."""
        self._held = 0
        self._lock = asyncio.Lock()
        self._names = [name for name, _ in shape.columns]
        names = ", ".join(f"`{name}`" for name in ("tenant", *self._names))
        self._statement = f"INSERT INTO {shape.rows} ({names}) FORMAT Native\n".encode()

    @property
    def pending(self) -> int:
        """Rows in memory: added, or in doubt."""
        return self._held

    def add(self, rows: Block, positions: Sequence[Position] = ()) -> None:
        """Take a block into memory. Raises Full where it would pass the bound and others wait already."""
        if not rows.size:
            return
        if self._held and self._held + rows.size > self.bound:
            raise Full(f"store: {self.name}: {self._held} rows wait already, {self.bound} are the bound")
        self._waiting.append(rows)
        self._held += rows.size

    async def flush(self) -> None:
        """Return when all that was added is durable. Raises Unavailable (call again) or Rejected."""
        refused: list[dict[str, Any]] = []
        async with self._lock:
            await self._settle(refused)  # what an earlier call left in doubt, unchanged
            if self._waiting:
                self._doubtful, self._waiting = self._waiting, []
                await self._settle(refused)
        if refused:
            raise Rejected(f"store: {self.name} refused {len(refused)} rows", refused)

    async def _settle(self, refused: list[dict[str, Any]]) -> None:
        if self._doubtful:
            bad: list[dict[str, Any]] = []
            await self._take(self._doubtful, bad)
            count = sum(block.size for block in self._doubtful)
            self._doubtful, self._body = [], b""
            self._held -= count
            self.written += count - len(bad)
            metrics.ROWS.labels(self.name).inc(count - len(bad))
            refused += bad

    async def _take(self, blocks: list[Block], refused: list[dict[str, Any]]) -> None:
        """Insert; where the data is refused, halve until the rows that are at fault are found."""
        try:
            await self._insert(blocks)
        except _Refusal as refusal:
            if len(blocks) > 1:
                half = len(blocks) // 2
                await self._take(blocks[:half], refused)
                await self._take(blocks[half:], refused)
            elif (count := blocks[0].size) > 1:
                await self._take([blocks[0].cut(0, count // 2)], refused)
                await self._take([blocks[0].cut(count // 2, count)], refused)
            else:
                row = dict(zip(self._names, blocks[0].rows()[0], strict=True))
                log.warning("store: %s refused a row: %s", self.name, refusal)
                refused.append({"table": self.name, "error": str(refusal), **row})

    async def _insert(self, blocks: Sequence[Block]) -> None:
        body = self._body if blocks is self._doubtful else b""
        if not body:
            body = await self._bytes_of(blocks)
        if blocks is self._doubtful:
            self._body = body
        try:
            # In pieces, with the statement in front: of whole bytes, or given a table's name, the client makes a copy,
            # which a failed try's error holds until garbage is collected (10 MB a try, measured).
            await self._client.raw_insert(
                insert_block=_pieces(body), fmt="Native", compression="lz4" if self._packed else None, settings=_INSERT
            )
        except DatabaseError as error:
            if getattr(error, "code", None) in _DATA:
                raise _Refusal(reason(error)) from None
            raise Unavailable(f"store: {self.name} cannot be written: {reason(error)}") from None
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise Unavailable(f"store: {self.name} cannot be written: {reason(error)}") from None

    async def _bytes_of(self, blocks: Sequence[Block]) -> bytes:
        try:
            body = b"".join([self._statement, *map(self._writer.bytes_of, blocks)])
        except UnicodeEncodeError as error:
            raise _Refusal(f"cannot be written as {self.shape.rows}: {error}") from None
        return await asyncio.to_thread(lz4.frame.compress, body) if self._packed else body

    async def close(self) -> None:
        """Drop what was not flushed. The connection belongs to Store."""
        self._waiting, self._doubtful, self._body, self._held = [], [], b"", 0


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]


class _Refusal(Exception):
    """The rows, not the store, are why an insert failed."""


class Store:
    """The sinks of all tables over one connection."""

    def __init__(self, client: Any, settings: Settings) -> None:
        def sink(shape: TableShape) -> TableSink:
            # Over the loopback packing costs more than it saves.
            packed = not is_local(settings.store_address[0])
            return TableSink(shape, client, settings.tenant, settings.store_rows * 2, packed=packed)

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

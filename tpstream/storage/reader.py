"""Reads from the store for the web page, the API and the command line.

Rows are dicts of JSON-able values; times are ms since 1970 as int. Values of a query are
always bound parameters, never pasted into its text.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from tpstream.errors import TpstreamError, Unavailable
from tpstream.settings import Settings
from tpstream.storage.client import connect, reason

Row = dict[str, Any]

# Codes that say that something is wrong with the query or its user, not that the store is away.
_ABOUT_THE_QUERY = frozenset({36, 42, 43, 46, 47, 53, 62, 164, 215, 386, 396, 456, 457, 497, 516})

_POINT = "device, key, ts, ts_from, kind, number, text, received_at"


class Reader:
    """Asynchronous reads. Every method raises Unavailable where the store is away."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._client: Any = None
        self._lock = asyncio.Lock()

    async def latest(self, device: str | None = None) -> list[Row]:
        """The newest point of each key, of one device or of all, by device and key."""
        where = "AND device = {device:String}" if device is not None else ""
        return await self._rows(
            f"SELECT {_POINT} FROM telemetry_latest WHERE tenant = {{tenant:String}} {where}"
            " ORDER BY device, key LIMIT 10000",
            device=device or "",
        )

    async def telemetry(
        self, device: str, key: str | None = None, start: int | None = None, end: int | None = None, limit: int = 1000
    ) -> list[Row]:
        """Points of a device (and key) with start <= ts < end, the newest `limit` of them, by rising ts."""
        conditions = ["tenant = {tenant:String}", "device = {device:String}"]
        if key is not None:
            conditions.append("key = {key:String}")
        if start is not None:
            conditions.append("ts >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')")
        if end is not None:
            conditions.append("ts < fromUnixTimestamp64Milli({end:Int64}, 'UTC')")
        rows = await self._rows(
            f"SELECT {_POINT} FROM telemetry WHERE {' AND '.join(conditions)}"
            " ORDER BY ts DESC, key, received_at DESC, source_offset DESC, source_index DESC LIMIT {limit:UInt32}",
            device=device,
            key=key or "",
            start=start or 0,
            end=end or 0,
            limit=limit,
        )
        return rows[::-1]

    async def windows(self, limit: int = 100) -> list[Row]:
        """The windows that closed last, newest first."""
        return await self._newest("windows", "closed_at DESC, start DESC, device, key", limit)

    async def alarms(self, limit: int = 100) -> list[Row]:
        """The alarms that began last, newest first."""
        return await self._newest("alarms", "started_at DESC, id", limit)

    async def commands(self, limit: int = 100, id: str | None = None) -> list[Row]:
        """The commands made last, newest first; or the one of that id."""
        if id is None:
            return await self._newest("commands", "created_at DESC, id", limit)
        return await self._rows("SELECT * FROM commands WHERE tenant = {tenant:String} AND id = {id:String}", id=id)

    async def dead_letters(self, limit: int = 100) -> list[Row]:
        """The newest dead letters; `payload` is text, or base64 (with `payload_base64` true) where it is no UTF-8."""
        rows = await self._newest("dead_letters", "ts DESC, id", limit, "*, base64Encode(payload) AS payload_raw")
        for row in rows:
            raw = row.pop("payload_raw")
            try:
                row["payload"], row["payload_base64"] = base64.b64decode(raw).decode(), False
            except UnicodeDecodeError:
                row["payload"], row["payload_base64"] = raw, True
        return rows

    async def devices(self) -> list[Row]:
        """Each device that sent points: number of keys, its newest ts and delivery, and its last online status."""
        return await self._rows(
            "SELECT d.device AS device, d.keys AS keys, d.ts AS ts, d.received_at AS received_at,"
            " s.online AS online, s.status_at AS status_at FROM"
            " (SELECT device, count() AS keys, max(ts) AS ts, max(received_at) AS received_at FROM telemetry_latest"
            "  WHERE tenant = {tenant:String} GROUP BY device) AS d LEFT JOIN"
            " (SELECT device, argMax(online, ts) AS online, max(ts) AS status_at FROM device_status"
            "  WHERE tenant = {tenant:String} GROUP BY device) AS s USING (device)"
            " ORDER BY device LIMIT 10000 SETTINGS join_use_nulls = 1"
        )

    async def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Row]:
        """Rows of any query, as the user of the settings. Raises TpstreamError with ClickHouse's own words."""
        return await self._run(sql, parameters or {})

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _newest(self, table: str, order: str, limit: int, columns: str = "*") -> list[Row]:
        return await self._rows(
            f"SELECT {columns} FROM {table} WHERE tenant = {{tenant:String}} ORDER BY {order} LIMIT {{limit:UInt32}}",
            limit=limit,
        )

    async def _rows(self, sql: str, **parameters: Any) -> list[Row]:
        return await self._run(sql, {"tenant": self.settings.tenant, **parameters})

    async def _run(self, sql: str, parameters: dict[str, Any]) -> list[Row]:
        try:
            async with self._lock:
                if self._client is None:
                    self._client = await connect(self.settings)
            result = await self._client.query(sql, parameters=parameters)
        except (ClickHouseError, OSError, TimeoutError) as error:
            if getattr(error, "code", None) in _ABOUT_THE_QUERY:
                raise TpstreamError(f"store: {reason(error)}") from None
            raise Unavailable(f"store: cannot be read: {reason(error)}") from None
        names = result.column_names
        return [{name: plain(value) for name, value in zip(names, row, strict=True)} for row in result.result_rows]


def plain(value: Any) -> Any:
    """A value of a row as JSON has it: times as ms, bytes as text or base64, others as they are or as text."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, datetime.datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (zoned - _EPOCH) // datetime.timedelta(milliseconds=1)
    if isinstance(value, (bytes, bytearray)):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return str(value)


_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

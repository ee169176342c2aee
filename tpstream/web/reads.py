"""The API's reads: each asks the store and answers with rows; times are ms since 1970."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tpstream.web.parameters import checked, device_number, integer, known, text, time_range
from tpstream.web.reply import Call, Reply, error_reply, json_reply

HOUR = 3_600_000
MAX_ROWS = 10_000
MAX_KEY = 256

Rows = Sequence[Mapping[str, Any]]

Registered = Callable[[], Iterable[tuple[str, str]]]
"""The registered devices: number and profile's name."""


class Store(Protocol):
    """What is needed of `tpstream.storage.reader.Reader`; each may raise Unavailable."""

    async def latest(self, device: str | None = None) -> Rows: ...
    async def telemetry(self, device: str, key: str, start: int, end: int, limit: int) -> Rows: ...
    async def windows(self, limit: int) -> Rows: ...
    async def alarms(self, limit: int) -> Rows: ...
    async def commands(self, limit: int, id: str | None = None) -> Rows: ...
    async def dead_letters(self, limit: int) -> Rows: ...
    async def devices(self) -> Rows: ...


def _now() -> int:
    return int(time.time() * 1000)


class Reads:
    """One method per GET route of the API."""

    def __init__(self, store: Store, registered: Registered = tuple, clock: Callable[[], int] = _now) -> None:
        self._store = store
        self._registered = registered
        self._clock = clock

    async def devices(self, call: Call) -> Reply:
        """GET /api/v1/devices?limit=: who is registered, and who has spoken, by number."""
        limit = _limit(call, 1000)
        rows = {str(row["device"]): {**row, "registered": False} for row in await self._store.devices()}
        for number, profile in self._registered():
            rows[number] = {"device": number, **rows.get(number, {}), "registered": True, "profile": profile}
        numbers = sorted(rows)
        return json_reply({"total": len(numbers), "devices": [rows[number] for number in numbers[:limit]]})

    async def telemetry(self, call: Call) -> Reply:
        """GET /api/v1/devices/{device}/telemetry?key=&start=&end=&limit=.

        Points of one key with start <= ts < end, the newest `limit` of them, by rising ts.
        """
        known(call.query, "key", "start", "end", "limit")
        device = device_number(call.path["device"])
        key = text(call.query, "key", MAX_KEY)
        start, end = time_range(call.query, self._clock(), HOUR)
        limit = integer(call.query, "limit", 1000, 1, MAX_ROWS)
        points = await self._store.telemetry(device, key, start, end, limit)
        return json_reply({"device": device, "key": key, "start": start, "end": end, "points": points})

    async def latest(self, call: Call) -> Reply:
        """GET /api/v1/devices/{device}/telemetry/latest: the newest point of each key."""
        known(call.query)
        device = device_number(call.path["device"])
        return json_reply({"device": device, "points": await self._store.latest(device)})

    async def windows(self, call: Call) -> Reply:
        """GET /api/v1/windows?limit=: closed windows, the newest first."""
        return json_reply({"windows": await self._store.windows(_limit(call))})

    async def alarms(self, call: Call) -> Reply:
        """GET /api/v1/alarms?limit=."""
        return json_reply({"alarms": await self._store.alarms(_limit(call))})

    async def commands(self, call: Call) -> Reply:
        """GET /api/v1/commands?limit=: the newest first."""
        return json_reply({"commands": await self._store.commands(_limit(call))})

    async def command(self, call: Call) -> Reply:
        """GET /api/v1/commands/{id}: one command's present state."""
        known(call.query)
        id = checked(call.path["id"], "id", 64)
        rows = await self._store.commands(1, id=id)
        if not rows:
            return error_reply(404, f"no command {id!r} is stored", remedy="one just sent appears within a few seconds")
        return json_reply(rows[0])

    async def dead_letters(self, call: Call) -> Reply:
        """GET /api/v1/dead_letters?limit=: the newest first."""
        return json_reply({"dead_letters": await self._store.dead_letters(_limit(call))})


def _limit(call: Call, default: int = 100) -> int:
    known(call.query, "limit")
    return integer(call.query, "limit", default, 1, MAX_ROWS)

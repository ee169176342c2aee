"""GET /api/v1/live: all that the page shows, in one answer, made at most once per interval."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tpstream.observability.health import Health
from tpstream.web.parameters import known
from tpstream.web.reads import Registered, Rows, Store
from tpstream.web.reply import Call, Reply, json_reply

INTERVAL = 0.7
"""Seconds for which an answer is good: however many pages are open, the store is asked once."""
SHARE = 3.0
MAX_INTERVAL = 5.0
"""A store that is busy is asked less often: an answer is good for SHARE times what it took, up to MAX_INTERVAL s."""

MAX_DEVICES = 200
MAX_KEYS = 32
"""Devices, and keys of each, that the page shows; the API has them all."""
MAX_SILENT = 2_000
"""Registered devices that are looked through for those that have not spoken yet."""
ROWS = 30
MAX_TEXT = 300
"""Characters of a text in the live view; the API has it whole."""
SPEAKS = 60_000
"""Milliseconds since its newest point within which a device of unknown status counts as online."""


class Live:
    """Gathers the live view. While one answer is in the making, everybody waits for that one."""

    def __init__(
        self,
        store: Store,
        health: Health,
        registered: Registered = tuple,
        *,
        clock: Callable[[], float] = time.time,
        interval: float = INTERVAL,
    ) -> None:
        self._store = store
        self._health = health
        self._registered = registered
        self._clock = clock
        self._interval = interval
        self._lock = asyncio.Lock()
        self._good = (0.0, 0.0)
        self._reply: Reply | None = None

    async def get(self, call: Call) -> Reply:
        """The live view. Unavailable: the store is away."""
        known(call.query)
        async with self._lock:
            began = self._clock()
            if self._reply is None or not self._good[0] <= began < self._good[1]:
                self._reply = json_reply(await self._gather())
                ended = self._clock()
                self._good = (began, ended + min(MAX_INTERVAL, max(self._interval, SHARE * (ended - began))))
            return self._reply

    async def _gather(self) -> dict[str, Any]:
        store = self._store
        devices, latest, windows, alarms, commands, letters = await asyncio.gather(
            store.devices(),
            store.latest(),
            store.windows(10 * ROWS),
            store.alarms(ROWS),
            store.commands(ROWS),
            store.dead_letters(ROWS),
        )
        now = int(self._clock() * 1000)
        shown = assemble(devices, latest, now, itertools.islice(self._registered(), MAX_SILENT))
        return {
            "now": now,
            "health": self._health.report(),
            "devices_total": len(shown),
            "devices": shown[:MAX_DEVICES],
            "windows": _short(windows),
            "alarms": _short(alarms),
            "commands": _short(commands),
            "dead_letters": _short(letters),
        }


def assemble(devices: Rows, latest: Rows, now: int, registered: Iterable[tuple[str, str]] = ()) -> list[dict[str, Any]]:
    """Each device with its online state, the delivery of its newest point, and the newest value of each key.

    `registered` are device numbers with their profile's name: who has not spoken yet is shown too,
    as is who has spoken and is not registered.
    """
    found: dict[str, dict[str, Any]] = {}

    def entry(name: str) -> dict[str, Any]:
        return found.setdefault(name, {"device": name, "profile": "", "online": None, "last_seen": None, "values": []})

    for name, profile in registered:
        entry(name)["profile"] = profile
    for row in devices:
        online = row.get("online")
        entry(str(row["device"])).update(
            online=None if online is None else bool(online), last_seen=row.get("received_at")
        )
    for row in latest:
        device = entry(str(row["device"]))
        device["values"].append(_value(row))
        device["last_seen"] = max(device["last_seen"] or 0, row.get("received_at") or row["ts"])
    for device in found.values():
        device["values"] = sorted(device["values"], key=lambda value: str(value["key"]))[:MAX_KEYS]
        seen = device["last_seen"]
        if device["online"] is None and seen is not None:
            device["online"] = now - seen < SPEAKS
    return [found[name] for name in sorted(found)]


def _value(row: Mapping[str, Any]) -> dict[str, Any]:
    kind, number = row.get("kind"), row.get("number")
    value: Any = number if kind == "number" else bool(number) if kind == "bool" else _cut(row.get("text"))
    return {"key": _cut(row["key"]), "kind": kind, "ts": row["ts"], "value": value}


def _short(rows: Rows) -> list[dict[str, Any]]:
    return [{name: _cut(value) for name, value in row.items()} for row in rows]


def _cut(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value[: MAX_TEXT * 4].decode("utf-8", "backslashreplace")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return value[:MAX_TEXT] + "…"
    return value

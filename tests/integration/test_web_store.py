"""The API over the real store: what was written comes out, and the store may go and come back."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
from parts.console_server import Console
from parts.store import StorePart

from tpstream.bus.position import Life, Position
from tpstream.messages import (
    Alarm,
    AlarmState,
    CommandState,
    CommandStatus,
    DeadLetter,
    DeviceStatus,
    Point,
    Telemetry,
    WindowResult,
)
from tpstream.storage import columns
from tpstream.storage.reader import Reader
from tpstream.storage.sinks import Store

LIFE = Life(bytes(range(16)))
DEVICE = 'web <b>"ö'
PATH = "/api/v1/devices/web%20%3Cb%3E%22%C3%B6"


def origins(count: int, first: int = 0) -> list[Position]:
    return [Position(LIFE, 3, first + n) for n in range(count)]


async def fill(part: StorePart, now: int) -> None:
    """Three readings of a device, and one of each thing that happens."""
    store = await Store.connect(part.settings())
    one = origins(1)
    temps = [Telemetry(DEVICE, (Point("temp", now - 3000 + n * 1000, 20.5 + n),)) for n in range(3)]
    last = Telemetry(DEVICE, (Point("on", now, 1.0, kind="bool"), Point("note", now, text="<i>hi</i>", kind="text")))
    window = WindowResult("w10", DEVICE, "temp", now - 20_000, now - 10_000, "mean", 21.5, 3, now)
    alarm = Alarm("web-alarm", "hot", DEVICE, "major", AlarmState.ACTIVE, now, 1, value=31.0)
    command = CommandStatus("web-cmd", DEVICE, "fan", CommandState.SENT, now, now, 1, params='{"on":true}')
    letter = DeadLetter("web-letter", now, DEVICE, "decode", "json", topic="devices/x/telemetry", payload=b"\xff{")
    try:
        store.telemetry.add(columns.telemetry([*temps, last], origins(4), [now] * 4))
        store.windows.add(columns.windows([window], one, [now]))
        store.alarms.add(columns.alarms([alarm], one, [now]))
        store.commands.add(columns.commands([command], one, [now]))
        store.dead_letters.add(columns.dead_letters([letter], one, [now]))
        store.device_status.add(columns.device_status([DeviceStatus(DEVICE, False, now, "gone")], one, [now]))
        for sink in store.sinks:
            await sink.flush()
    finally:
        await store.close()


async def ask(console: Console, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(console.url + path) as reply:
        return reply.status, await reply.json()


async def test_what_was_stored_is_what_the_api_says(store: StorePart, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    await fill(store, now)
    reader = Reader(store.settings())
    async with Console(tmp_path, store=reader) as console:
        status, answer = await ask(console, f"{PATH}/telemetry?key=temp&start={now - 3000}&end={now - 1000}")
        assert (status, [(p["ts"], p["number"]) for p in answer["points"]]) == (
            200,
            [(now - 3000, 20.5), (now - 2000, 21.5)],
        )
        latest = (await ask(console, f"{PATH}/telemetry/latest"))[1]["points"]
        assert {p["key"]: p["number"] if p["kind"] != "text" else p["text"] for p in latest} == {
            "temp": 22.5,
            "on": 1.0,
            "note": "<i>hi</i>",
        }
        assert (await ask(console, "/api/v1/commands/web-cmd"))[1]["state"] == "SENT"

        _, live = await ask(console, "/api/v1/live")
        [device] = [d for d in live["devices"] if d["device"] == DEVICE]
        assert (device["online"], device["last_seen"]) == (False, now)
        assert {v["key"]: v["value"] for v in device["values"]} == {"temp": 22.5, "on": True, "note": "<i>hi</i>"}
        for name, id, field in (
            ("alarms", "web-alarm", ("state", "active")),
            ("commands", "web-cmd", ("params", '{"on":true}')),
            ("dead_letters", "web-letter", ("reason", "json")),
        ):
            [row] = [row for row in live[name] if row["id"] == id]
            assert row[field[0]] == field[1]
        [window] = [row for row in live["windows"] if row["device"] == DEVICE]
        assert (window["value"], window["count"], window["start"]) == (21.5, 3, now - 20_000)
    await reader.close()


async def test_the_store_may_be_killed_and_come_back(own_store: StorePart, tmp_path: Path) -> None:
    await fill(own_store, int(time.time() * 1000))
    reader = Reader(own_store.settings())
    async with Console(tmp_path, store=reader) as console:
        assert (await ask(console, "/api/v1/live"))[0] == 200
        own_store.stop(signal.SIGKILL)
        status, answer = await ask(console, "/api/v1/windows")
        assert status == 503
        assert "store" in answer["error"]
        assert answer["remedy"]

        own_store.start()
        status, answer = await ask(console, f"{PATH}/telemetry/latest")
        assert (status, len(answer["points"])) == (200, 3)
    await reader.close()

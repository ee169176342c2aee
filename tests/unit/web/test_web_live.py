"""The live view: devices with state and newest values; one question to the store however many pages are open."""

from __future__ import annotations

import asyncio
import json

import pytest
from parts.console_server import Memory

from tpstream.errors import Unavailable
from tpstream.observability.health import Health
from tpstream.web.live import MAX_DEVICES, MAX_TEXT, Live, assemble
from tpstream.web.reply import Call

NOW = 1_700_000_000_000


def point(device: str, key: str, ts: int, **more: object) -> dict[str, object]:
    return {
        "device": device,
        "key": key,
        "ts": ts,
        "received_at": ts,
        "kind": "number",
        "number": 1.0,
        "text": "",
        **more,
    }


def test_a_device_has_state_time_and_its_newest_values_by_key() -> None:
    devices = [{"device": "b", "profile": "greenhouse", "online": 1}, {"device": "a", "online": 0}]
    latest = [point("b", "z", NOW - 5), point("b", "on", NOW - 9, kind="bool", number=0.0)]

    a, b = assemble(devices, latest, NOW)

    assert (a["device"], a["online"], a["last_seen"], a["values"]) == ("a", False, None, [])
    assert (b["device"], b["online"], b["last_seen"]) == ("b", True, NOW - 5)
    assert [(v["key"], v["value"]) for v in b["values"]] == [("on", False), ("z", 1.0)]


@pytest.mark.parametrize(("silent", "online"), [(1_000, True), (59_999, True), (60_000, False)])
def test_a_device_of_unknown_status_is_online_while_it_speaks(silent: int, online: bool) -> None:
    [device] = assemble([], [point("new", "t", NOW - silent)], NOW)
    assert device["online"] is online


def test_a_device_with_a_wrong_clock_is_judged_by_delivery() -> None:
    [device] = assemble([], [point("d", "t", NOW - 10**9, received_at=NOW - 10)], NOW)
    assert (device["online"], device["last_seen"]) == (True, NOW - 10)


async def test_texts_and_devices_are_bounded_and_bytes_become_text() -> None:
    store = Memory()
    store.rows["latest"] = [point(f"d{n:04}", "t", NOW) for n in range(MAX_DEVICES + 7)]
    store.rows["dead_letters"] = [{"id": "x", "payload": b"\xff" + b"a" * 10_000, "ts": NOW}]
    view = json.loads((await Live(store, Health(), clock=lambda: NOW / 1000).get(Call())).body)

    assert (len(view["devices"]), view["devices_total"]) == (MAX_DEVICES, MAX_DEVICES + 7)
    payload = view["dead_letters"][0]["payload"]
    assert payload.startswith("\\xffaaa")
    assert len(payload) == MAX_TEXT + 1


class Counting(Memory):
    asked = 0

    async def latest(self, device: str | None = None) -> list[dict[str, object]]:
        self.asked += 1
        await asyncio.sleep(0)
        return []


async def test_many_pages_are_one_question_per_interval() -> None:
    clock, store = [100.0], Counting()
    live = Live(store, Health(), clock=lambda: clock[0])
    await asyncio.gather(*(live.get(Call()) for _ in range(50)))
    assert store.asked == 1
    clock[0] += 0.69
    await live.get(Call())
    assert store.asked == 1
    clock[0] += 0.02
    await live.get(Call())
    assert store.asked == 2


class Slow(Counting):
    """A store that takes its time, on the test's clock."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    async def devices(self) -> list[dict[str, object]]:
        self.clock[0] += self.seconds
        return []


@pytest.mark.parametrize(("seconds", "good"), [(0.1, 0.7), (0.5, 1.5), (60.0, 5.0)])
async def test_a_busy_store_is_asked_less_often(seconds: float, good: float) -> None:
    clock = [100.0]
    store = Slow(clock, seconds)
    live = Live(store, Health(), clock=lambda: clock[0])
    await live.get(Call())
    clock[0] += good - 0.01
    await live.get(Call())
    assert store.asked == 1
    clock[0] += 0.02
    await live.get(Call())
    assert store.asked == 2


async def test_a_clock_that_is_set_back_does_not_freeze_the_page() -> None:
    clock, store = [100.0], Counting()
    live = Live(store, Health(), clock=lambda: clock[0])
    await live.get(Call())
    clock[0] = 50.0
    await live.get(Call())
    assert store.asked == 2


async def test_the_store_away_is_unavailable_and_no_old_answer_hides_it() -> None:
    clock, store = [100.0], Memory()
    live = Live(store, Health(), clock=lambda: clock[0])
    await live.get(Call())
    clock[0] += 1
    store.away = "the store is not reachable"
    with pytest.raises(Unavailable):
        await live.get(Call())
    with pytest.raises(Unavailable):
        await live.get(Call())
    store.away = ""
    assert (await live.get(Call())).status == 200

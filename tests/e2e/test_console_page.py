"""The live page in real headless Chromium: it shows what happens, sends commands, and trusts no text."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from parts.chromium import Browser, Page
from parts.console_server import Console, Row

pytestmark = pytest.mark.chromium

HOSTILE = "<img src=x onerror=\"document.title='pwned'\">"


def now() -> int:
    return int(time.time() * 1000)


def alarm(at: int, **more: object) -> Row:
    return {"started_at": at, "ended_at": None, "severity": "major", "value": 31.5, **more}


def command(at: int, **more: object) -> Row:
    return {"created_at": at, "updated_at": at, "params": "", "attempts": 1, "result": "", **more}


def dead_letter(at: int, **more: object) -> Row:
    return {"ts": at, "stage": "decode", "topic": "devices/telemetry", **more}


def greenhouse(console: Console) -> None:
    """Two devices with history, and one of each thing that happens."""
    rows, at = console.store.rows, now()
    rows["devices"] = [{"device": "g1", "online": True}, {"device": "g2", "online": False}]
    for n in range(100):
        console.store.point("g1", "temp", 20 + n / 10, at - 100_000 + n * 1000)
    console.store.point("g2", "temp", 18.5, at - 7_200_000)
    rows["windows"] = [
        {"window": "mean10", "device": "g1", "key": "temp", "start": at - 40_000, "end": at - 30_000,
         "aggregate": "mean", "value": 26.5, "count": 10, "closed_at": at}
    ]  # fmt: skip
    rows["alarms"] = [
        {"id": "a", "rule": "too-hot", "device": "g1", "severity": "major", "state": "active", "started_at": at}
    ]
    rows["commands"] = [
        {"id": "c", "device": "g1", "method": "fan", "params": '{"on":true}', "state": "SENT", "created_at": at}
    ]
    rows["dead_letters"] = [
        {"id": "d", "device": "g2", "reason": "json", "stage": "decode", "ts": at, "payload": b"{no"}
    ]


@pytest_asyncio.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with Console(tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def page(browser: Browser) -> Page:
    return await browser.page()


def text(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).innerText"


async def test_it_shows_devices_values_and_what_happened(console: Console, page: Page) -> None:
    greenhouse(console)
    await page.open(console.url)
    await page.until(f"{text('#devices')}.includes('g2')")

    assert await page.run(text("#counts")) == "2 devices, 1 online"
    states = "[...document.querySelectorAll('.device .dot')].map(d => d.getAttribute('aria-label'))"
    assert await page.run(states) == ["online", "offline"]
    devices = await page.run(text("#devices"))
    assert "29.9" in devices
    assert "2 h" in devices
    for list_id, expected in (
        ("alarms", ["too-hot on g1", "active"]),
        ("commands", ["fan → g1", "SENT", '{"on":true}']),
        ("windows", ["g1 · temp", "mean 26.5", "10 points"]),
        ("letters", ["g2", "json", "at decode", "{no"]),
    ):
        shown = await page.run(text(f"#{list_id}"))
        assert all(part in shown for part in expected), shown
        assert await page.run(f"document.querySelector('#{list_id}-empty').hidden")
    assert await page.run(text("#state-text")) == "all parts well"


async def test_the_chart_shows_the_windowed_value_and_moves(console: Console, page: Page) -> None:
    greenhouse(console)
    await page.open(console.url)
    await page.until("document.querySelector('#plot .line') && document.querySelector('#plot .mean')")
    assert await page.run(text("#chart-title")) == "g1 · temp"
    line = "document.querySelector('#plot .line').getAttribute('d')"
    before = await page.run(line)

    console.store.point("g1", "temp", 77.25)
    await page.until(f"{text('#reading')} === '77.25'", 5)

    assert await page.run(line) != before
    label = await page.run("document.querySelector('#plot svg').getAttribute('aria-label')")
    assert label.startswith("temp of g1: newest 77.25")


async def test_silence_is_a_gap_in_the_line(console: Console, page: Page) -> None:
    at = now()
    for n in (*range(30), *range(90, 120)):
        console.store.point("g1", "temp", 20.0, at - 120_000 + n * 1000)
    await page.open(console.url)
    await page.until("document.querySelector('#plot .line')")
    path = await page.run("document.querySelector('#plot .line').getAttribute('d')")
    assert (path.count("M"), path.count("L")) == (2, 58)


async def test_a_value_is_chosen_by_a_click_and_keeps_its_focus(console: Console, page: Page) -> None:
    greenhouse(console)
    console.store.point("g2", "humidity", 61.5)
    await page.open(console.url)
    chip = ".device:nth-child(2) .value:nth-child(1)"
    await page.until(f"document.querySelector('{chip}')")
    await page.click(chip)
    await page.until(f"{text('#chart-title')} === 'g2 · humidity' && {text('#reading')} === '61.5'")
    await asyncio.sleep(1.2)  # the page's own beat: rows are changed in place, not made anew
    assert await page.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert await page.run("document.querySelector('#send-device').value") == "g2"


async def test_the_form_sends_a_command_and_follows_it_to_its_end(console: Console, page: Page) -> None:
    greenhouse(console)
    await page.open(console.url)
    await page.until("document.querySelector('.device')")
    await page.type("#send-device", "g1")
    await page.type("#send-method", "fan")
    await page.type("#send-params", "{on}")
    await page.click("#send-button")
    await page.until(f"{text('#send-outcome')}.startsWith('The parameters are not JSON')")
    assert console.sent.records == []

    await page.type("#send-params", '{"on": true}')
    await page.click("#send-button")
    await page.until(f"{text('#send-outcome')}.startsWith('Accepted as')")
    [(_, _, key, request)] = console.sent.records
    assert (key, request.method, request.params, request.source) == (b"g1", "fan", '{"on":true}', "api")

    ended = command(
        now(), id=request.id, device="g1", method="fan", state="SUCCEEDED", result='{"result":0,"message":"done"}'
    )
    console.store.rows["commands"].insert(0, ended)
    await page.until(f"{text('#send-outcome')}.includes('SUCCEEDED, answered: done')")
    assert page.complaints == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
async def test_no_width_scrolls_sideways(console: Console, page: Page, width: int) -> None:
    greenhouse(console)
    long = "x" * 128
    console.store.rows["devices"].append({"device": long, "online": None})
    console.store.point(long, "k" * 256, 1e300)
    console.store.rows["dead_letters"].append(
        {"id": "e", "device": long, "reason": "json", "ts": now(), "payload": b"p" * 900}
    )
    await page.open(console.url, width, 800)
    await page.until(f"{text('#devices')}.includes('xxx') && document.querySelector('#plot .line')")
    assert await page.run("document.documentElement.scrollWidth") <= width
    await page.resize(width, 800)
    assert await page.run("document.querySelector('#plot svg').getBoundingClientRect().right") <= width


async def test_nothing_is_asked_of_another_host(console: Console, page: Page) -> None:
    greenhouse(console)
    await page.open(console.url)
    await page.until("document.querySelector('#plot .line')")
    assert len(page.requests) >= 5
    assert [url for url in page.requests if not url.startswith(console.url)] == []
    assert page.complaints == []


async def test_hostile_names_and_payloads_are_only_text(console: Console, page: Page) -> None:
    rows, at = console.store.rows, now()
    rows["devices"] = [{"device": HOSTILE, "online": True, "profile": HOSTILE}]
    console.store.point(HOSTILE, HOSTILE, 1.0)
    rows["latest"].append(
        {"device": HOSTILE, "key": "text", "ts": at, "received_at": at, "kind": "text", "number": None, "text": HOSTILE}
    )
    names = dict.fromkeys(("id", "device", "key", "window", "aggregate", "rule", "state", "method", "params"), HOSTILE)
    rows["windows"] = [{**names, "start": 0, "end": at, "value": 1.0, "count": 1}]
    rows["alarms"] = [{**alarm(at), **names, "severity": HOSTILE}]
    rows["commands"] = [{**command(at), **names, "result": HOSTILE}]
    rows["dead_letters"] = [
        {
            **dead_letter(at, **names),
            "reason": HOSTILE,
            "payload": HOSTILE.encode(),
            "topic": HOSTILE,
            "detail": "javascript:alert(1)",
        }
    ]
    await page.open(console.url)
    await page.until("document.querySelector('#plot .line')")
    for list_id in ("devices", "alarms", "commands", "windows", "letters"):
        assert HOSTILE in await page.run(text(f"#{list_id}"))
    assert await page.run("document.title") == "tpstream"
    assert await page.run("document.querySelectorAll('main img, main script, main a, main iframe').length") == 0
    assert [url for url in page.requests if not url.startswith(console.url)] == []
    assert page.complaints == []


async def test_a_script_in_the_page_would_be_refused_by_its_policy(console: Console, page: Page) -> None:
    await page.open(console.url)
    script = "(() => { document.body.innerHTML = '<b>x</b>'; return 'done'; })()"
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        await page.run(script)


async def test_the_store_away_is_said_calmly_and_what_was_known_stays(console: Console, page: Page) -> None:
    greenhouse(console)
    await page.open(console.url)
    await page.until("document.querySelector('#plot .line')")
    console.store.away = "ClickHouse at 127.0.0.1:8123 is not reachable"
    await page.until("!document.querySelector('#notice').hidden")
    notice = await page.run(text("#notice"))
    assert "The store is away" in notice
    assert "not reachable" in notice
    assert "g1" in await page.run(text("#devices"))
    console.store.away = ""
    await page.until("document.querySelector('#notice').hidden")
    assert await page.run(text("#state-text")) == "all parts well"


async def test_before_the_first_message_it_says_so(console: Console, page: Page) -> None:
    await page.open(console.url)
    await page.until(f"{text('#state-text')} === 'all parts well'")
    assert await page.run(text("#devices-empty")) == "No device has spoken yet."
    assert page.complaints == []


async def test_every_control_has_a_name(console: Console, page: Page) -> None:
    greenhouse(console)
    await page.open(console.url)
    await page.until("document.querySelector('#plot .line')")
    await page.call("Accessibility.enable")
    nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
    controls = [
        n
        for n in nodes
        if not n["ignored"] and n["role"]["value"] in ("button", "textbox", "searchbox", "radio", "combobox", "image")
    ]
    assert len(controls) >= 10
    assert [n["role"]["value"] for n in controls if not n.get("name", {}).get("value")] == []

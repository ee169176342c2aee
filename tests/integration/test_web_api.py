"""The API on Faust's real web server: routes, guard, errors as JSON, and nothing of Faust's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from parts.console_server import Console

from tpstream.messages import Device
from tpstream.observability.health import Part
from tpstream.settings import Settings
from tpstream.web.routes import MAX_BODY

JSON = {"Content-Type": "application/json"}
COMMANDS = "/api/v1/devices/g1/commands"


@pytest_asyncio.fixture
async def console(tmp_path: Path) -> AsyncIterator[Console]:
    async with Console(tmp_path) as made:
        yield made


async def ask(console: Console, path: str, method: str = "GET", **options: Any) -> tuple[int, Any, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, console.url + path, **options) as reply,
    ):
        text = await reply.text()
        return reply.status, json.loads(text) if "json" in reply.headers["Content-Type"] else text, reply.headers


async def test_page_and_assets_come_with_a_policy_that_lets_nothing_else_in(console: Console) -> None:
    for path in ("/", "/assets/console.css", "/assets/console.js", "/assets/icon.svg"):
        status, text, headers = await ask(console, path)
        assert (status, bool(text)) == (200, True)
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text


async def test_health_is_red_with_a_part(console: Console) -> None:
    assert (await ask(console, "/health"))[:2] == (200, {"ok": True, "kafka": {"ok": True, "detail": "connected"}})
    console.health.register("store", lambda: Part(False, "away"))
    status, report, _ = await ask(console, "/health")
    assert (status, report["ok"], report["store"]["detail"]) == (503, False, "away")


async def test_metrics_are_prometheus_text(console: Console) -> None:
    await ask(console, "/health")
    status, text, headers = await ask(console, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert 'tpstream_web_requests_total{status="200"}' in text


async def test_telemetry_is_read_by_key_and_time(console: Console) -> None:
    for n in range(5):
        console.store.point("grün/7".replace("/", "-"), "temp {x}", 20.0 + n, ts=1000 + n)
    path = "/api/v1/devices/gr%C3%BCn-7/telemetry"
    status, answer, _ = await ask(console, f"{path}?key=temp%20%7Bx%7D&start=1001&end=1004")
    assert (status, [p["number"] for p in answer["points"]]) == (200, [21.0, 22.0, 23.0])
    assert (await ask(console, f"{path}/latest"))[1]["points"][0]["number"] == 24.0


async def test_devices_are_who_is_registered_and_who_has_spoken(console: Console) -> None:
    console.register(Device("silent"))
    console.register(Device("known", created_at=1))
    console.store.rows["devices"] = [{"device": "known", "online": True}, {"device": "stranger", "online": None}]
    _, answer, _ = await ask(console, "/api/v1/devices")
    assert answer["total"] == 3
    found = {row["device"]: (row["registered"], row.get("online")) for row in answer["devices"]}
    assert found == {"known": (True, True), "silent": (True, None), "stranger": (False, None)}
    live = (await ask(console, "/api/v1/live"))[1]
    assert [d["device"] for d in live["devices"]] == ["known", "silent", "stranger"]
    assert len((await ask(console, "/api/v1/devices?limit=2"))[1]["devices"]) == 2


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/api/v1/devices/g1/telemetry", "key"),
        ("/api/v1/devices/g1/telemetry?key=t&start=x", "start"),
        ("/api/v1/devices/g1/telemetry?key=t&start=5&end=4", "start"),
        ("/api/v1/devices/g1/telemetry?key=t&limit=0", "limit"),
        ("/api/v1/devices/g1/telemetry?key=t&form=1", "form"),
        ("/api/v1/devices/a%2Fb/telemetry?key=t", "device"),
        ("/api/v1/devices/$SYS/telemetry/latest", "device"),
        ("/api/v1/windows?limit=100000", "limit"),
        ("/api/v1/alarms?limit=-1", "limit"),
        ("/api/v1/dead_letters?limit=many", "limit"),
        ("/api/v1/commands?state=SENT", "state"),
    ],
)
async def test_a_bad_parameter_is_400_and_named(console: Console, path: str, parameter: str) -> None:
    status, answer, _ = await ask(console, path)
    assert (status, answer["parameter"]) == (400, parameter)
    assert answer["error"].startswith(f"{parameter}: ")


async def test_a_command_is_accepted_and_can_be_asked_for(console: Console) -> None:
    origin = {"Origin": console.url}
    status, answer, headers = await ask(
        console, COMMANDS, "POST", json={"method": "fan", "params": {"on": True}}, headers=origin
    )
    assert (status, len(answer["id"])) == (202, 36)
    [(topic, _, key, request)] = console.sent.records
    assert (topic, key, request.method, request.params) == ("tp.downlink.command.v1", b"g1", "fan", '{"on":true}')

    assert (await ask(console, headers["Location"]))[0] == 404
    console.store.rows["commands"].append({"id": answer["id"], "state": "SENT"})
    assert (await ask(console, headers["Location"]))[1]["state"] == "SENT"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**JSON, "Origin": "http://evil.example"}, 403),
        ({**JSON, "Origin": "null"}, 403),
        ({**JSON, "Host": "evil.example"}, 403),
        ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
async def test_no_foreign_page_commands_a_device(console: Console, headers: dict[str, str], status: int) -> None:
    answer = await ask(console, COMMANDS, "POST", data=b'{"method":"fan"}', headers=headers)
    assert (answer[0], "error" in answer[1]) == (status, True)
    assert console.sent.records == []


async def test_a_foreign_name_reads_nothing_either(console: Console) -> None:
    for path in ("/", "/api/v1/live", "/health", "/metrics", "/nowhere"):
        assert (await ask(console, path, headers={"Host": f"evil.example:{console.port}"}))[0] == 403


async def test_further_names_are_let_in_by_a_setting(tmp_path: Path) -> None:
    async with Console(tmp_path, settings=Settings(web_hosts="worker-process:6066")) as console:
        assert (await ask(console, "/health", headers={"Host": "worker-process:6066"}))[0] == 200


async def test_a_process_of_this_machine_holds_commands_and_nobody_else(console: Console) -> None:
    assert (await ask(console, "/hold", "POST", json={}, headers={"Origin": "http://evil.example"}))[0] == 403
    elsewhere = aiohttp.TCPConnector(
        local_addr=("127.0.0.2", 0)
    )  # another address is another machine, as far as one sees
    async with (
        aiohttp.ClientSession(connector=elsewhere) as session,
        session.post(f"{console.url}/hold", json={}) as no,
    ):
        assert no.status == 403
    assert (await ask(console, COMMANDS, "POST", json={"method": "fan"}))[0] == 202
    assert (await ask(console, "/hold", "POST", json={}))[:2] == (200, {"held": True})
    status, answer, _ = await ask(console, COMMANDS, "POST", json={"method": "fan"})
    assert (status, answer["remedy"]) == (503, "try again")
    assert (await ask(console, "/release", "POST", json={}))[:2] == (200, {"held": False})
    assert (await ask(console, COMMANDS, "POST", json={"method": "fan"}))[0] == 202


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b" " * 10_000


async def test_a_body_beyond_the_bound_is_413_however_it_is_sent(console: Console) -> None:
    whole = await ask(console, COMMANDS, "POST", data=b" " * (MAX_BODY + 1), headers=JSON)
    piecemeal = await ask(console, COMMANDS, "POST", data=chunks(), headers=JSON)
    assert (whole[0], piecemeal[0]) == (413, 413)
    assert console.sent.records == []


@pytest.mark.parametrize(
    "path",
    ["/table", "/table/x/", "/router", "/router/x/", "/graph", "/stats", "/performance", "/nowhere", "/api/v1/nowhere",
     "/assets/../install.py", "/assets/%2e%2e/install.py", "/static/console.js"],
)  # fmt: skip
async def test_faust_s_own_pages_and_unknown_routes_are_404_as_json(console: Console, path: str) -> None:
    status, answer, _ = await ask(console, path)
    assert (status, "error" in answer) == (404, True)


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/health"), ("POST", "/"), ("GET", COMMANDS)])
async def test_another_method_is_405_as_json(console: Console, method: str, path: str) -> None:
    status, answer, headers = await ask(console, path, method, headers=JSON)
    assert (status, "error" in answer, bool(headers["Allow"])) == (405, True, True)


async def test_no_other_site_is_told_that_it_may(console: Console) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST", **JSON}
    status, _, answered = await ask(console, COMMANDS, "OPTIONS", headers=headers)
    assert status in (403, 405)
    assert not [name for name in answered if name.lower().startswith("access-control")]


async def test_the_store_away_is_503_with_a_remedy_and_commands_still_go(console: Console) -> None:
    console.store.away = "ClickHouse at 127.0.0.1:8123 is not reachable"
    for path in ("/api/v1/live", "/api/v1/devices", "/api/v1/windows", "/api/v1/devices/g1/telemetry/latest"):
        status, answer, _ = await ask(console, path)
        assert (status, answer["error"], bool(answer["remedy"])) == (503, console.store.away, True)
    assert (await ask(console, COMMANDS, "POST", json={"method": "fan"}))[0] == 202


async def test_a_defect_is_one_line_without_a_trace(console: Console) -> None:
    console.store.rows["windows"] = None
    status, answer, _ = await ask(console, "/api/v1/windows")
    assert status == 500
    assert "Traceback" not in json.dumps(answer)
    assert "TypeError" not in json.dumps(answer)

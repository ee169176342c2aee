"""/health of the whole: each other part is asked, one that is away, ill or silent is not well, and nobody waits."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from tpstream.observability.health import Health, Part
from tpstream.observability.neighbours import Neighbours
from tpstream.settings import Settings


class Platform:
    """Store, bridge and a worker behind one port, as they answer when all is well; tests change the answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: dict[str, tuple[int, Any]] = {
            "/ping": (200, "Ok.\n"),
            "/": (200, "1\n"),
            "/health": (200, {"ok": True, "kafka": {"ok": True, "detail": "here"}}),
        }
        self.asked: list[tuple[str, str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, await request.text(), request.headers.get("X-ClickHouse-User", "")))
        status, content = self.answers[request.path]
        if content is None:
            await asyncio.Event().wait()
        return web.Response(status=status, text=content if isinstance(content, str) else json.dumps(content))

    def announce(self, name: str, pid: int, port: int) -> Path:
        path = self.folder / "run" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": name, "pid": pid, "port": port}))
        return path


@pytest_asyncio.fixture
async def platform(tmp_path: Path) -> AsyncIterator[tuple[Platform, Settings]]:
    one = Platform(tmp_path)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    yield one, Settings(data_dir=tmp_path, store_port=port, bridge_web_port=port)
    await runner.cleanup()


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is alive until a test says otherwise."""
    one = subprocess.Popen(["sleep", "60"])
    yield one
    one.kill()
    one.wait()


async def looked(settings: Settings) -> dict[str, Any]:
    neighbours = Neighbours(settings, patience=0.2)
    await look(neighbours)
    return {name: part.as_dict() for name, part in neighbours.parts().items()}


async def look(neighbours: Neighbours) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.2)) as session:
        await neighbours.look(session)


async def test_store_bridge_and_announced_workers_have_an_entry_each(
    platform: tuple[Platform, Settings], process: subprocess.Popen[bytes]
) -> None:
    one, settings = platform
    one.announce("store", process.pid, settings.store_port)
    one.announce("process", os.getpid(), settings.store_port)  # ourselves
    health, neighbours = Health(), Neighbours(settings)
    health.register("kafka", lambda: Part(True))
    health.include(neighbours.parts)
    assert health.answer()[0] == 503  # nobody has been asked yet
    assert health.report()["bridge"] == {"ok": False, "detail": "not asked yet"}
    await look(neighbours)
    status, report = health.answer()
    assert status == 200
    assert set(report) == {"ok", "kafka", "store", "bridge", "worker-store"}
    assert ("/", "SELECT 1", "default") in one.asked


@pytest.mark.parametrize(
    ("path", "answer", "part", "detail"),
    [
        ("/ping", (502, "no"), "store", "/ping answers 502"),
        ("/", (516, "Code: 516. DB::Exception: refused"), "store", "answers no query: Code: 516. DB::Exception"),
        ("/", (200, None), "store", "no answer within 0.2 s"),
        ("/health", (503, {"ok": False, "kafka": {"ok": False, "detail": "is away"}}), "bridge", "kafka: is away"),
        ("/health", (200, None), "bridge", "no answer within 0.2 s"),
        ("/health", (200, "<html>"), "bridge", "not reachable: "),
        ("/health", (503, []), "bridge", "http://127.0.0.1"),
    ],
)
async def test_who_is_not_well_says_why(
    platform: tuple[Platform, Settings], path: str, answer: tuple[int, Any], part: str, detail: str
) -> None:
    one, settings = platform
    one.answers[path] = answer
    found = await looked(settings)
    assert not found[part]["ok"]
    assert detail in found[part]["detail"]
    assert {name for name, entry in found.items() if not entry["ok"]} == {part}


async def test_who_is_away_is_not_well(tmp_path: Path) -> None:
    found = await looked(Settings(data_dir=tmp_path, store_port=1, bridge_web_port=1))
    assert {name: entry["ok"] for name, entry in found.items()} == {"store": False, "bridge": False}
    assert all(entry["detail"].startswith("not reachable: ") for entry in found.values())


async def test_the_bridge_may_be_elsewhere_or_nowhere(platform: tuple[Platform, Settings]) -> None:
    _, settings = platform
    assert (await looked(replace(settings, host="0.0.0.0")))["bridge"]["ok"]
    elsewhere = await looked(replace(settings, bridge_web_host="localhost"))
    assert elsewhere["bridge"]["detail"] == f"http://localhost:{settings.bridge_web_port}"
    assert set(await looked(replace(settings, bridge_web_host="-"))) == {"store"}


async def test_a_worker_that_ended_without_a_word_is_not_well_and_one_that_withdrew_is_gone(
    platform: tuple[Platform, Settings], process: subprocess.Popen[bytes]
) -> None:
    one, settings = platform
    one.announce("old", 2**22 + 1, settings.store_port)  # of a run long ago: nobody we have met
    path = one.announce("store", process.pid, settings.store_port)
    neighbours = Neighbours(settings)
    await look(neighbours)
    assert neighbours.parts()["worker-store"].ok
    process.kill()
    process.wait()
    await look(neighbours)
    assert neighbours.parts()["worker-store"].detail == f"has ended (pid {process.pid})"
    path.unlink()
    assert set(neighbours.parts()) == {"store", "bridge"}


async def test_it_goes_on_asking(platform: tuple[Platform, Settings]) -> None:
    one, settings = platform
    neighbours = Neighbours(settings, every=0.0)
    asking = asyncio.create_task(neighbours.run())
    async with asyncio.timeout(5):
        while not neighbours.parts()["bridge"].ok:
            await asyncio.sleep(0)
        one.answers["/health"] = (503, {})
        while neighbours.parts()["bridge"].ok:
            await asyncio.sleep(0)
    asking.cancel()

"""The other parts of the platform, asked in the background: /health of the process role is that of the whole."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from tpstream.observability.announce import announced
from tpstream.observability.health import Part
from tpstream.settings import Settings

EVERY = 1.0
"""Seconds between an answer and the next question."""
PATIENCE = 3.0
"""Seconds that a part has to answer."""

NOT_ASKED = Part(False, "not asked yet")
NOWHERE = "-"
"""As TPSTREAM_BRIDGE_WEB_HOST: there is no bridge that concerns us."""

Ask = Callable[[aiohttp.ClientSession], Awaitable[Part]]


class Neighbours:
    """The bridge, the store, and the workers that announced themselves in the data folder.

    `run` asks, `parts` tells what was found last; a part that has not been asked yet is not well,
    nor is a worker that was there and ended without taking its announcement back.
    """

    def __init__(self, settings: Settings, *, every: float = EVERY, patience: float = PATIENCE) -> None:
        self._settings = settings
        self._every = every
        self._patience = patience
        self._found: dict[str, Part] = {}
        self._met: dict[str, int] = {}

    def parts(self) -> Mapping[str, Part]:
        """What is known of each, by name; called by `Health` at each request, and never waits."""
        return {name: self._found.get(name, NOT_ASKED) for name in self._questions()}

    async def run(self) -> None:
        """Ask for ever."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._patience)) as session:
            while True:
                await self.look(session)
                await asyncio.sleep(self._every)

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Ask each once, all at the same time."""
        questions = self._questions()
        answers = await asyncio.gather(*(self._answer(ask, session) for ask in questions.values()))
        self._found = dict(zip(questions, answers, strict=True))

    def _questions(self) -> dict[str, Ask]:
        settings = self._settings
        host = settings.reached_host
        questions: dict[str, Ask] = {"store": self._ask_store}
        if settings.bridge_web_host != NOWHERE:
            at = settings.bridge_web_host or host
            questions["bridge"] = _health_of(f"http://{at}:{settings.bridge_web_port}")
        there = {one.name: one for one in announced(settings.data_dir) if one.pid != os.getpid()}
        for name, one in there.items():
            self._met[name] = one.pid
            questions[f"worker-{name}"] = _health_of(f"http://{host}:{one.port}")
        for name in self._met.keys() - there.keys():
            if (settings.data_dir / "run" / f"{name}.json").exists():
                questions[f"worker-{name}"] = _ended(self._met[name])
        return questions

    async def _answer(self, ask: Ask, session: aiohttp.ClientSession) -> Part:
        try:
            return await ask(session)
        except TimeoutError:
            return Part(False, f"no answer within {self._patience:g} s")
        except Exception as error:  # whatever it is: who asks must go on asking
            return Part(False, f"not reachable: {' '.join(str(error).split()) or type(error).__name__}")

    async def _ask_store(self, session: aiohttp.ClientSession) -> Part:
        """Whether it is there, and whether it answers a query: it may be the first without the second."""
        settings = self._settings
        where = "http://{}:{}".format(*settings.store_reached)
        async with session.get(f"{where}/ping") as answer:
            if answer.status != 200:
                return Part(False, f"{where}/ping answers {answer.status}")
        user = {"X-ClickHouse-User": settings.store_user, "X-ClickHouse-Key": settings.store_password}
        async with session.post(f"{where}/", data=b"SELECT 1", headers=user) as answer:
            text = (await answer.text(errors="replace")).strip()
            if (answer.status, text) != (200, "1"):
                return Part(False, f"is there and answers no query: {' '.join(text.split())[:200]}")
        return Part(True, where)


def _health_of(where: str) -> Ask:
    async def ask(session: aiohttp.ClientSession) -> Part:
        async with session.get(f"{where}/health") as answer:
            report = json.loads(await answer.read())
            return Part(answer.status == 200, _unwell(report) or where)

    return ask


def _ended(pid: int) -> Ask:
    async def ask(session: aiohttp.ClientSession) -> Part:
        return Part(False, f"has ended (pid {pid})")

    return ask


def _unwell(report: Any) -> str:
    """The parts of a report that are not well, with their reasons."""
    parts = report.items() if isinstance(report, dict) else ()
    return "; ".join(
        f"{name}: {part.get('detail', '')}"
        for name, part in parts
        if isinstance(part, dict) and part.get("ok") is False
    )

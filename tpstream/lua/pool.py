"""Run scripts (docs/scripts.md): batches of calls, in a process that can be killed.

scripts = Scripts(settings)
await scripts.start()
[outcome] = await scripts.run([Call("six_bytes@1f2e", source, "decode", payload, topic)])
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from tpstream.lua import sandbox
from tpstream.lua.child import Child, Gone
from tpstream.lua.frames import Request
from tpstream.lua.quarantine import Quarantine
from tpstream.lua.sandbox import Status
from tpstream.settings import Settings

MAX_CALLS = 1_000
MAX_BYTES = 4_000_000
"""Bounds of one request."""

MAX_KNOWN = 1_000
"""Scripts whose source a process keeps; beyond, it is replaced."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """One message for a script."""

    script: str
    """name@version."""
    source: str
    entry: Literal["decode", "encode"]
    msg: bytes
    topic: str


class Result(msgspec.Struct, frozen=True, gc=False):
    """What the script returned: JSON text (up), or the device's bytes (down)."""

    value: bytes


class Failed(msgspec.Struct, frozen=True, gc=False):
    """Why there is no result; the words of dead letters."""

    reason: Literal["script", "quarantine"]
    detail: str
    """One line for a person."""


Outcome = Result | Failed


def check(source: str, max_chars: int = 50_000) -> None:
    """Compile a script without running it. Raises ConfigurationError naming the line."""
    sandbox.check(source, max_chars)


class Scripts:
    """A script process, a spare one that takes its place at once, and who is in quarantine."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._quarantine = Quarantine()
        self._child: Child | None = None
        self._spare: asyncio.Task[Child] | None = None
        self._turn = asyncio.Lock()
        self._offences = {
            Status.CPU: f"stopped: used more than {settings.script_cpu_ms} ms of CPU",
            Status.MEMORY: f"stopped: used more than {settings.script_memory_bytes:,} bytes of memory",
            Status.STUCK: f"killed: did not end within {settings.script_wall_ms} ms",
        }

    async def start(self) -> None:
        """Start the processes, so that the first call need not. Raises Unavailable."""
        async with self._turn:
            if self._child is None:
                self._child = await Child.start(self._settings)
                self._spare = asyncio.create_task(Child.start(self._settings))

    async def stop(self) -> None:
        """End the processes; calls in hand are finished first."""
        async with self._turn:
            if self._child is not None:
                await self._child.stop()
                self._child = None
            if self._spare is not None:
                with contextlib.suppress(Exception):
                    await (await self._spare).stop()
                self._spare = None

    def check(self, source: str) -> None:
        """Compile a script without running it. Raises ConfigurationError naming the line."""
        check(source, self._settings.script_max_chars)

    async def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Run calls in order; one outcome each. A call can only fail itself.

        Raises Unavailable where no script process can be started.
        """
        if not calls:
            return []
        async with self._turn:
            outcomes: list[Outcome] = []
            crashes = 0
            while len(outcomes) < len(calls):
                before = len(outcomes)
                try:
                    await self._some(calls, outcomes, one_by_one=crashes > 0)
                    crashes = 0
                except Gone:
                    crashes = crashes + 1 if len(outcomes) == before else 1
                    await self._replace()
                    # The first time the culprit may be any that was not answered; then it is the first.
                    if crashes > 1:
                        outcomes.append(self._offence(calls[len(outcomes)], Status.STUCK))
            return outcomes

    async def _some(self, calls: Sequence[Call], outcomes: list[Outcome], *, one_by_one: bool) -> None:
        """Answer the next calls: as many as one request may have, or until an offence. Raises Gone."""
        now = int(self._clock() * 1000)
        chosen: list[Call] = []
        size = 0
        while len(outcomes) + len(chosen) < len(calls) and len(chosen) < MAX_CALLS and size < MAX_BYTES:
            call = calls[len(outcomes) + len(chosen)]
            until = self._quarantine.until(call.script, now)
            if until is None:
                chosen.append(call)
                size += len(call.msg)
            elif chosen:
                break
            else:
                seconds = (until - now + 999) // 1000
                outcomes.append(Failed("quarantine", f"script {call.script} is in quarantine for {seconds} s more"))
        if chosen:
            await self._request(chosen, outcomes, one_by_one=one_by_one)

    async def _request(self, calls: list[Call], outcomes: list[Outcome], *, one_by_one: bool) -> None:
        child = self._child
        if child is None or len(child.known) > MAX_KNOWN:
            child = await self._replace()
        sources = {c.script: c.source for c in calls if c.script not in child.known}
        rows = [(c.script, c.entry.encode(), c.msg, c.topic.encode(errors="replace")) for c in calls]
        try:
            await child.send(Request(sources, rows, one_by_one))
            answered = 0
            while answered < len(calls):
                for status, text in await child.receive():
                    call = calls[answered]
                    answered += 1
                    if status == Status.OK:
                        outcomes.append(Result(text))
                    elif status == Status.ERROR:
                        outcomes.append(Failed("script", f"{call.script}: {text.decode(errors='replace')}"))
                    else:
                        outcomes.append(self._offence(call, Status(status)))
                        if status == Status.STUCK:
                            await self._replace()
                        return
        except asyncio.CancelledError:
            child.kill()  # its answers would be taken for those of the next request
            if self._child is child:
                self._child = None
            raise

    def _offence(self, call: Call, status: Status) -> Failed:
        self._quarantine.offence(call.script, int(self._clock() * 1000))
        return Failed("script", f"{call.script}: {self._offences[status]}")

    async def _replace(self) -> Child:
        """Put the spare process in the place of one that is gone, and start another spare."""
        old, self._child = self._child, None
        if old is not None:
            await old.stop(at_once=True)
        spare, self._spare = self._spare, None
        self._child = child = await (spare or Child.start(self._settings))
        self._spare = asyncio.create_task(Child.start(self._settings))
        return child

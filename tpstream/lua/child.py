"""The worker's side of one script process."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process

from tpstream.errors import Unavailable
from tpstream.lua.frames import LENGTH, Reply, Request, decode_reply, frame
from tpstream.settings import Settings

_SILENCE = 50
"""Times the wall budget after which a process that says nothing is killed from outside."""


_START_SECONDS = 30.0
"""How long a process may take until it reads."""


class Gone(Exception):
    """The process ended without answering."""


class Child:
    """A running script process. One request at a time."""

    def __init__(self, process: Process, silence: float) -> None:
        self._process = process
        self._silence = silence
        self.known: set[str] = set()
        """The scripts whose source it has."""

    @classmethod
    async def start(cls, settings: Settings) -> Child:
        """Start a process and wait until it reads. Raises Unavailable where none can be started."""
        arguments = (
            settings.script_cpu_ms,
            settings.script_wall_ms,
            settings.script_memory_bytes,
            settings.script_max_result,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tpstream.lua.process", *map(str, arguments), stdin=PIPE, stdout=PIPE
            )
        except OSError as error:
            raise Unavailable(f"no script process could be started: {error.strerror}") from None
        child = cls(process, _START_SECONDS)
        try:
            await child.receive()
        except Gone:
            await child.stop(at_once=True)
            raise Unavailable("a script process ended as soon as it was started; its words are in the log") from None
        except asyncio.CancelledError:
            child.kill()
            raise
        child._silence = settings.script_wall_ms * _SILENCE / 1000
        return child

    async def send(self, request: Request) -> None:
        """Hand over a request. Raises Gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame(request))
            await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise Gone from None
        self.known.update(request.sources)

    async def receive(self) -> Reply:
        """The next reply. Raises Gone where the process ended, or was silent and therefore killed."""
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(self._silence):
                head = await self._process.stdout.readexactly(LENGTH.size)
                return decode_reply(await self._process.stdout.readexactly(LENGTH.unpack(head)[0]))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            raise Gone from None

    def kill(self) -> None:
        """End it at once, without waiting."""
        if self._process.returncode is None:
            self._process.kill()

    async def stop(self, *, at_once: bool = False) -> None:
        """End it: by closing its pipe, or at once; wait until it is gone."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        if not at_once:
            try:
                async with asyncio.timeout(1.0):
                    await self._process.wait()
            except TimeoutError:
                at_once = True
        if at_once:
            self.kill()
        await self._process.wait()

"""Keeps one part running: starts it, waits until it is ready, starts it again when it dies."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

from tpstream.embedded.logfile import LogFile
from tpstream.embedded.part import Part, PartFailed, how
from tpstream.embedded.process import Process
from tpstream.embedded.restarts import Restarts
from tpstream.errors import TpstreamError

Say = Callable[[str, str], None]
"""Tells a person something about a part: its name, one line."""

SLOW = 15.0
"""Seconds after which a part that is not ready yet is mentioned."""

WRONG = 2
"""The exit code by which our own commands say that a setting is wrong: trying again is no use."""


async def _nothing() -> None:
    return None


class Watch:
    """One part. `start` and `stop` may be called again and again; what fails goes to `failed`.

    `on_death` runs when the part has died and is wanted again, `before_start` before each of its
    processes, `after_ready` when one is ready, before anybody is told so.
    """

    def __init__(
        self,
        part: Part,
        log: LogFile,
        say: Say,
        failed: Callable[[PartFailed], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.part = part
        self.log = log
        self.process: Process | None = None
        self.ready = asyncio.Event()
        self.wanted = False
        self.on_death: Callable[[], Awaitable[None]] = _nothing
        self.before_start: Callable[[], Awaitable[None]] = _nothing
        self.after_ready: Callable[[], Awaitable[None]] = _nothing
        self._say = say
        self._failed = failed
        self._clock = clock
        self._restarts = Restarts()
        self._task: asyncio.Task[None] | None = None
        self._was_ready = False

    def begin(self) -> None:
        """Want it to run; `ready` is set when it does."""
        self.wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._keep(), name=f"watch {self.part.name}")

    async def start(self) -> None:
        """Return when it is ready."""
        self.begin()
        await self.ready.wait()

    async def stop(self, seconds: float, *, expected: bool = True) -> None:
        """End it in order within `seconds`, else by force, said where an orderly end was `expected`."""
        self.wanted = False
        if self.process is not None and not await self.process.stop(seconds, self.part.stop_signal) and expected:
            self._say(self.part.name, f"had not stopped after {seconds:.1f} s and was killed")
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.ready.clear()

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal, if it has one."""
        if self.process is not None:
            self.process.signal(number)

    async def _keep(self) -> None:
        try:
            while self.wanted:
                code = await self._run()
                if not self.wanted:
                    return
                delay = self._restarts.died(self._clock())
                if delay is None or (code == WRONG and not self._was_ready):
                    text = f"{self.part.name} cannot start" if delay is not None else f"{self.part.name} keeps dying"
                    raise PartFailed(
                        f"{text} ({how(code)}); its log is {self.log.path}",
                        self.log.tail(),
                        WRONG if code == WRONG else 1,
                    )
                self._say(
                    self.part.name, f"died ({how(code)}); starting it again in {delay:.1f} s, see {self.log.path}"
                )
                await asyncio.gather(self.on_death(), asyncio.sleep(delay))
        except PartFailed as error:
            self._failed(error)
        except OSError as error:
            self._failed(PartFailed(f"{self.part.name} cannot be started: {error.strerror} ({error.filename})"))

    async def _run(self) -> int:
        """One life of the process; its return code."""
        await self.before_start()
        with self.log.open() as log:
            self.process = Process(self.part.command, self.part.environ, log)
        readying = asyncio.create_task(self._become_ready(self.process))
        ended = asyncio.create_task(self.process.wait())
        try:
            await asyncio.wait({readying, ended}, return_when=asyncio.FIRST_COMPLETED)
            if readying.done() and (error := readying.exception()) is not None:
                if not isinstance(error, TpstreamError):
                    raise error
                # Ready by its own account, but of no use: say why, and let it count as a death.
                self._say(self.part.name, str(error))
                self.process.kill()
            return await ended
        finally:
            self.ready.clear()
            for task in (readying, ended):
                task.cancel()
            self.process = None if self.process.ended.done() else self.process

    async def _become_ready(self, process: Process) -> None:
        began = self._clock()
        mentioned = False
        while not await self.part.ready(process.pid):
            if not mentioned and self._clock() - began > SLOW:
                mentioned = True
                self._say(self.part.name, f"not ready after {SLOW:.0f} s; still waiting, see {self.log.path}")
            await asyncio.sleep(0.05)
        await self.after_ready()
        self._was_ready = True
        if self.wanted:
            self._say(self.part.name, f"ready ({self._clock() - began:.1f} s)")
        self.ready.set()

"""`tpstream up`: all parts as one process group, started, watched and stopped in order."""

from __future__ import annotations

import asyncio
import errno
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tpstream.bus.provision import provision
from tpstream.embedded import ask, parts
from tpstream.embedded.keeper import Keeper
from tpstream.embedded.kept import Kept
from tpstream.embedded.lives import Lives, drained
from tpstream.embedded.logfile import LogFile
from tpstream.embedded.part import Part, PartFailed
from tpstream.embedded.process import Process
from tpstream.embedded.restarts import allowance
from tpstream.embedded.watch import Say, Watch
from tpstream.settings import Settings

LOOK = 2.0
"""Seconds between looks at memory, logs and disk."""

WELL_SECONDS = 20.0
"""Seconds after which a platform that is not well yet is mentioned."""

RENEW_AGAIN = 30.0
"""Seconds until a new life that was put off is tried again."""

DRAIN_SHARE = 0.7
"""Share of a worker's time to stop in which it may work off what is left."""

ONE_STROKE = 1.0
"""Seconds within which a second signal belongs to the first."""

STOP_HOLD = 1.0
"""Seconds that the worker has to stop taking commands, at a stop."""

LOW_DISK = 50_000_000


class Supervisor:
    """Runs `parts` until it is told to stop or one fails for good; `run` gives the exit code."""

    def __init__(
        self,
        settings: Settings,
        all_parts: Mapping[str, Part],
        say: Say,
        *,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._say = say
        self._started = started
        self._stop = asyncio.Event()
        self._asked_at = 0.0
        self._failure: asyncio.Future[PartFailed] = asyncio.get_running_loop().create_future()
        self._logs = {name: LogFile(settings.data_dir / "log" / f"{name}.log") for name in all_parts}
        self.watches = {name: Watch(part, self._logs[name], say, self._fail) for name, part in all_parts.items()}
        self._keeper: Keeper | None = None
        self._lives: Lives | None = None
        self._low_disk = False
        if parts.KAFKA in all_parts and all_parts[parts.KAFKA].forgets:
            kept = Kept(settings.data_dir / "config")
            kept.load()
            self._keeper = Keeper(kept, settings.bootstrap)
            self._lives = Lives(settings, self.watches, self._keeper, say)

    def request_stop(self, signal_name: str) -> None:
        """Stop in order; asked again, and not by the same stroke (`timeout` sends two signals), kill everything."""
        now = time.monotonic()
        if self._stop.is_set() and now - self._asked_at < ONE_STROKE:
            return
        if self._stop.is_set():
            self._say("up", f"{signal_name} again: killing everything")
            for watch in self.watches.values():
                if watch.process is not None:
                    watch.process.kill()
        else:
            self._say("up", f"{signal_name}: stopping in order; once more kills")
            self._asked_at = now
        self._stop.set()

    async def run(self) -> int:
        """0 after an orderly stop. Raises PartFailed, TpstreamError; everything is stopped then, too."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.request_stop, number.name)
        work = asyncio.create_task(self._work(), name="supervise")
        stop = asyncio.create_task(self._stop.wait())
        watched: set[asyncio.Future[Any]] = {work, stop, self._failure}
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, stop):
                task.cancel()
            results = await asyncio.gather(work, return_exceptions=True)
            self._stop.set()
            await self._stop_all()
        if self._failure.done():
            raise self._failure.result()
        if isinstance(results[0], Exception):
            raise results[0]
        return 0

    def _fail(self, error: PartFailed) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    async def _work(self) -> None:
        await self._start()
        telling = asyncio.create_task(self._tell_when_well())
        try:
            await self._look_after()
        finally:
            telling.cancel()

    async def _look_after(self) -> None:
        put_off_until = 0.0
        while True:
            await asyncio.sleep(LOOK)
            self._look_at_disk()
            if self._too_large() and time.monotonic() >= put_off_until:
                assert self._lives is not None  # only its broker can be too large
                if not await self._lives.renew():
                    put_off_until = time.monotonic() + RENEW_AGAIN

    async def _start(self) -> None:
        store = asyncio.create_task(self._ready(parts.STORE))
        await self._ready(parts.KAFKA)
        if self._lives is None:
            await provision(self.settings)
        # The workers take longest, and follow what is applied while they start.
        workers = asyncio.create_task(self._ready(parts.WORKER, parts.WORKER_STORE))
        if self.settings.app:
            await self._apply(self.settings.app)
        await self._ready(parts.BRIDGE)
        await asyncio.gather(store, workers)
        await self._ready(parts.SIMULATOR)

    async def _ready(self, *names: str) -> None:
        await asyncio.gather(*(self.watches[name].start() for name in names if name in self.watches))

    async def _apply(self, directory: str) -> None:
        """`tpstream apply` as a process, like the user would."""
        log = LogFile(self.settings.data_dir / "log" / "apply.log")
        command = (sys.executable, "-m", "tpstream", "apply", directory)
        began = time.monotonic()
        with log.open() as file:
            process = Process(command, self.settings.environ(), file)
        try:
            code = await process.wait()
        finally:
            process.kill()
        if code != 0:
            raise PartFailed(f"{directory} could not be applied", log.tail(), 2 if code == 2 else 1)
        self._say("application", f"{_short(directory)} applied ({time.monotonic() - began:.1f} s)")

    async def _tell_when_well(self) -> None:
        """Say "ready" once /health is green, which asks every part; where that takes long, say what is not."""
        url = f"http://{self.settings.reached_host}:{self.settings.web_port}/health"
        mention_at = time.monotonic() + WELL_SECONDS
        while parts.WORKER in self.watches:
            code, report = await ask.report(url)
            if code == 200:
                break
            if time.monotonic() > mention_at:
                mention_at = float("inf")
                unwell = [
                    f"{name} ({part.get('detail', '')})"
                    for name, part in report.items()
                    if isinstance(part, dict) and not part.get("ok", True)
                ]
                self._say("health", f"not well yet: {', '.join(unwell) or 'no answer'}; still waiting, see {url}")
            await asyncio.sleep(0.1)
        self._started()

    def _too_large(self) -> bool:
        watch = self.watches.get(parts.KAFKA)
        if self._lives is None or watch is None or watch.process is None or not watch.ready.is_set():
            return False
        return watch.process.memory() >= self.settings.kafka_memory_mb * 1_000_000

    def _look_at_disk(self) -> None:
        try:
            for log in self._logs.values():
                log.bound()
            free = shutil.disk_usage(self.settings.data_dir).free
        except OSError as error:
            free = 0 if error.errno == errno.ENOSPC else LOW_DISK
        low = free < LOW_DISK
        if low and not self._low_disk:
            self._say("disk", f"only {free // 1_000_000} MB are free in {self.settings.data_dir}; free some space")
        self._low_disk = low

    async def _stop_all(self) -> None:
        began = time.monotonic()
        order = [self.watches[name] for name in parts.STOP_ORDER if name in self.watches]
        for watch in order:
            watch.wanted = False
        kafka = self.watches.get(parts.KAFKA)
        await self._refuse_commands()
        for n, watch in enumerate(order):
            remaining = began + self.settings.stop_seconds - time.monotonic()
            seconds = allowance(remaining, watch.part.share, sum(later.part.share for later in order[n + 1 :]))
            stop_by = time.monotonic() + seconds
            # The embedded broker forgets: what is acknowledged has to be worked off first.
            forgets = kafka is not None and kafka.part.forgets and kafka.ready.is_set()
            owes = forgets and watch.part.lag is not None and watch.ready.is_set()
            if owes and not await drained([watch], seconds * DRAIN_SHARE):
                self._say(watch.part.name, "has not worked off everything; the embedded broker forgets the rest")
            if watch is kafka and self._keeper is not None:
                await self._keeper.leave()
            await watch.stop(max(0.1, stop_by - time.monotonic()))
        self._say("up", f"stopped ({time.monotonic() - began:.1f} s)")

    async def _refuse_commands(self) -> None:
        """What is taken after the worker has worked off everything would go with the embedded broker's memory."""
        worker = self.watches.get(parts.WORKER)
        if self._lives is None or worker is None or not worker.ready.is_set():
            return
        if not await self._lives.hold(parts.WORKER, STOP_HOLD):
            self._say(parts.WORKER, "does not hold: a command that is sent now may be lost")


def _short(directory: str) -> str:
    try:
        return str(Path(directory).resolve().relative_to(Path.cwd()))
    except ValueError:
        return directory

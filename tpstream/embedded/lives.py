"""The lives of the embedded Kafka broker: begun, lost, and ended in good order."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterable, Mapping

from tpstream.bus.provision import provision
from tpstream.embedded import ask, parts
from tpstream.embedded.keeper import Keeper
from tpstream.embedded.watch import Say, Watch
from tpstream.settings import Settings

POLL = 0.1
"""Seconds between questions for a worker's lag."""

LOST_SECONDS = 2.0
"""Workers whose broker died may store what they have fetched, but cannot commit: they are killed then,
and continue from their last checkpoint."""

HOLD_SECONDS = 10.0
RELEASE_SECONDS = 2.0
DRAIN_SECONDS = 30.0
MOST = 2.0
"""At this multiple of TPSTREAM_KAFKA_MEMORY_MB devices are held back until the store has caught up."""


class Lives:
    """Tied to the broker's watch: makes the topics and puts configuration back whenever it starts.

    While the broker starts, the bridge's process is paused: a client that asks an empty broker
    for a topic makes it, with another number of partitions, and what it sends there would be
    acknowledged and thrown away with it.
    """

    def __init__(self, settings: Settings, watches: Mapping[str, Watch], keeper: Keeper, say: Say) -> None:
        self._settings = settings
        self._kafka = watches[parts.KAFKA]
        near = settings.reached_host
        ports = {parts.BRIDGE: settings.bridge_web_port, parts.WORKER: settings.web_port}
        self._doors = {name: f"http://{near}:{port}" for name, port in ports.items() if name in watches}
        self._bridge = watches.get(parts.BRIDGE)
        self._workers = [watches[name] for name in (parts.WORKER, parts.WORKER_STORE) if name in watches]
        self._keeper = keeper
        self._say = say
        self._resume: list[Watch] = []
        self._kafka.on_death = self.lost
        self._kafka.before_start = self._hold_still
        self._kafka.after_ready = self.begun

    async def begun(self) -> None:
        """The broker has started, empty."""
        await provision(self._settings, wait=10, fresh=True)
        count = await self._keeper.put_back()
        self._keeper.follow()
        if count:
            self._say("configuration", f"{count} record{'s' * (count > 1)} put back")
        if self._bridge is not None:
            self._bridge.signal(signal.SIGCONT)
        for worker in self._resume:
            worker.begin()
        self._resume = []

    async def lost(self) -> None:
        """The broker has died, and its memory with it."""
        self._say(parts.KAFKA, "its memory is lost: what was acknowledged and not stored yet is gone")
        await self._stop_workers(LOST_SECONDS, expected=False)
        await self._keeper.leave()

    async def renew(self) -> bool:
        """Begin a new life in good order, as the broker never frees memory; False: not now."""
        began = time.monotonic()
        used = self._kafka.process.memory() if self._kafka.process else 0
        for name in self._doors:
            if not await self.hold(name):
                self._say(parts.KAFKA, f"a new life was put off, as the {name} does not hold; trying again")
                await self._release()
                return False
        try:
            patient = used < MOST * self._settings.kafka_memory_mb * 1_000_000
            if not await self._drained(DRAIN_SECONDS if patient else None):
                self._say(parts.KAFKA, f"a new life was put off: the workers still lag after {DRAIN_SECONDS:.0f} s")
                return False
            await self._stop_workers(self._settings.stop_seconds)
            await self._keeper.leave()
            await self._kafka.stop(2.0)
            await self._kafka.start()
            await asyncio.gather(*(worker.ready.wait() for worker in self._workers))
        finally:
            await self._release()
        self._say(
            parts.KAFKA,
            f"had grown to {used // 1_000_000} MB: began a new life in {time.monotonic() - began:.1f} s, nothing lost",
        )
        return True

    async def hold(self, name: str, seconds: float = HOLD_SECONDS) -> bool:
        """Whether the bridge takes no more from devices, or the worker no more commands, and Kafka has the rest."""
        return await ask.post(f"{self._doors[name]}/hold", seconds)

    async def _release(self) -> None:
        await asyncio.gather(*(ask.post(f"{door}/release", RELEASE_SECONDS) for door in self._doors.values()))

    async def _drained(self, seconds: float | None) -> bool:
        """Whether the workers have worked off everything; says so where it takes long."""
        if await drained(self._workers, DRAIN_SECONDS):
            return True
        if seconds is not None:
            return False
        self._say(parts.KAFKA, "is too large: devices are held back until the store has caught up")
        while not await drained(self._workers, DRAIN_SECONDS):
            pass
        return True

    async def _stop_workers(self, seconds: float, *, expected: bool = True) -> None:
        self._resume = [worker for worker in self._workers if worker.wanted] or self._resume
        await asyncio.gather(*(worker.stop(seconds, expected=expected) for worker in self._workers))

    async def _hold_still(self) -> None:
        if self._bridge is not None:
            self._bridge.signal(signal.SIGSTOP)


async def drained(workers: Iterable[Watch], seconds: float) -> bool:
    """Whether each, in this order, has told three times in a row that nothing is left, within `seconds`.

    Once would not do: a worker knows the end of its topics as of its last fetch.
    """
    deadline = time.monotonic() + seconds
    for worker in workers:
        zeros = 0
        while zeros < 3:
            if time.monotonic() > deadline:
                return False
            process, lag = worker.process, worker.part.lag
            if process is None and not worker.wanted:
                break
            value = await lag(process.pid) if process is not None and lag is not None else None
            zeros = zeros + 1 if value == 0 else 0
            await asyncio.sleep(POLL)
    return True

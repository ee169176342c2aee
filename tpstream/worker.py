"""A worker: the agents of one role, with all that they use, from the first connection to the last checkpoint."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

import uvloop

from tpstream import memory
from tpstream.app import Services, app
from tpstream.bus import connection
from tpstream.bus.agent import Agent, check_partitions
from tpstream.bus.attempt import one_line
from tpstream.bus.changelog import changelog_of
from tpstream.bus.owner import PartitionOwner
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.runner import Runner
from tpstream.bus.sink import Sink
from tpstream.devices.application import import_package
from tpstream.devices.catalog import Catalog
from tpstream.embedded import ports
from tpstream.errors import ConfigurationError, Rejected
from tpstream.lua.pool import Scripts
from tpstream.observability import metrics
from tpstream.observability.announce import announce, withdraw
from tpstream.observability.health import Health, Part
from tpstream.observability.neighbours import Neighbours
from tpstream.observability.server import HealthServer
from tpstream.settings import Settings
from tpstream.storage.rejected import dead_letters_of
from tpstream.storage.sinks import Store
from tpstream.web.install import install

log = logging.getLogger(__name__)

T = TypeVar("T")

AGENTS = {"process": ("decode", "windows", "rules", "downlink"), "store": ("store",)}
"""The modules in `agents/` that a role runs; a user's package adds its own."""

STALLED_SECONDS = 60.0
"""A partition with lag that has not moved for so long turns /health red."""

CHORES_SECONDS = 0.25
"""Between two looks at what is due, and two readings of the gauges."""


class Stopped(Exception):
    """A stop was asked for while something was still awaited."""


def run(settings: Settings) -> None:
    """Run the one role in `settings.roles` until SIGTERM or SIGINT. Raises TpstreamError."""
    if settings.roles not in AGENTS:
        raise ConfigurationError(f"role {settings.roles!r} is none of {', '.join(AGENTS)}; check --roles")
    if settings.roles == "process":  # now, rather than once Kafka has been waited for
        ports.check(settings.host, {"TPSTREAM_WEB_PORT": settings.web_port})
    connection.mend()
    memory.tune()
    uvloop.install()  # for the loop of Faust's consumer thread, too
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Worker(settings, settings.roles).run())


class Worker:
    """One process of one role."""

    def __init__(self, settings: Settings, role: str) -> None:
        self.settings = settings
        self.role = role
        self.health = Health()
        self._stop = asyncio.Event()
        for module in AGENTS[role]:
            importlib.import_module(f"agents.{module}")
        self.package = import_package(settings.app) if settings.app else None
        self.agents: list[Agent] = [agent for agent in app.agents.values() if agent.role == role]
        check_partitions(self.agents, settings.partitions)

    async def run(self) -> None:
        """Until a signal. Raises TpstreamError where it cannot go on: its supervisor starts it again."""
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, self._stop.set)
        with contextlib.suppress(Stopped):
            async with contextlib.AsyncExitStack() as stack:
                await self._work(stack)

    async def _work(self, stack: contextlib.AsyncExitStack) -> None:
        settings, role = self.settings, self.role
        process = role == "process"
        group = f"tpstream-{role}"
        tables = {table.name: table for agent in self.agents for table in agent.tables}
        changelogs = [changelog_of(group, table) for table in tables.values()]
        users = tuple(app.topics.values())
        await self._unless_stopped(provision(settings, changelogs=changelogs, users=users))
        producer = Producer(settings.bootstrap, settings.partitions, client_id=group, linger_ms=settings.linger_ms)
        await self._unless_stopped(producer.start())
        stack.push_async_callback(producer.stop)
        catalog = Catalog(settings)
        await self._unless_stopped(catalog.start())
        stack.push_async_callback(catalog.stop)
        scripts = Scripts(settings)
        store: Store | None = None
        if process:
            if any(profile.scripts for profile in catalog.profiles().values()):
                await scripts.start()  # else their processes would take 56 MB for nothing; the first call starts them
            stack.push_async_callback(scripts.stop)
        else:
            store = await self._unless_stopped(Store.connect(settings))
            stack.push_async_callback(store.close)
        services = Services(settings=settings, catalog=catalog, scripts=scripts, store=store)

        def on_rejected(sink: Sink, error: Rejected) -> None:
            for letter in dead_letters_of(sink, error):
                producer.add(*letter)

        runner = Runner(
            group,
            self.agents,
            services,
            producer,
            sinks=store.sinks if store else (),
            interval=(settings.checkpoint_ms if process else settings.store_ms) / 1000,
            web_port=settings.web_port if process else None,
            on_rejected=on_rejected,
        )
        self._watch(runner, catalog)
        if process:
            neighbours = Neighbours(settings)
            self.health.include(neighbours.parts)
            asking = asyncio.create_task(neighbours.run())
            stack.callback(asking.cancel)
            install(runner.faust, services, self.health, producer)
        await stack.enter_async_context(self._announced(process))
        chores = asyncio.create_task(self._chores(runner, catalog if process else None))
        chores.add_done_callback(lambda task: _ended(task, runner))
        try:
            await runner.run(self._stop)
        finally:
            chores.cancel()

    async def _unless_stopped(self, waiting: Awaitable[T]) -> T:
        """The result of something that may wait for ever; Stopped once a stop is asked for."""
        task = asyncio.ensure_future(waiting)
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            raise Stopped
        return task.result()

    @contextlib.asynccontextmanager
    async def _announced(self, process: bool) -> AsyncIterator[None]:
        """Serve /health and /metrics where Faust's web does not, and say in the data folder where."""
        settings = self.settings
        if process:
            path = announce(settings.data_dir, self.role, settings.web_port)
            try:
                yield
            finally:
                withdraw(path)
            return
        server = HealthServer(
            self.health, self.role, settings.host, settings.worker_web_port, next_free=True, data_dir=settings.data_dir
        )
        await server.start()
        try:
            yield
        finally:
            await server.stop()

    # Chores and health

    async def _chores(self, runner: Runner, catalog: Catalog | None) -> None:
        """What is due in silence, new configuration, gauges. `catalog` None: not an owner of raw partitions."""
        owner = PartitionOwner(runner.lane, runner.producer, runner.checkpoint.tables, runner.changelogs.epochs)
        runner.on_release += [owner.release, metrics.LAG.clear, metrics.SINCE_PROGRESS.clear]
        while True:
            await asyncio.sleep(CHORES_SECONDS)
            now = int(time.time() * 1000)
            if catalog is not None and runner.assigned:
                owner.configure(catalog.release_version, now)
                owner.tick(now)
            _measure(runner)

    def _watch(self, runner: Runner, catalog: Catalog) -> None:
        where = self.settings.bootstrap

        def kafka() -> Part:
            if not runner.producer.available:
                return Part(False, f"Kafka at {where} does not take records")
            # A worker that has just nothing to send would not notice by that.
            if not catalog.available:
                return Part(False, f"Kafka at {where} does not answer")
            return Part(True, where)

        self.health.register("kafka", kafka)
        self.health.register(self.role, lambda: _condition(runner))
        self.health.number("lag", runner.lag)
        self.health.number("life", lambda: runner.life.hex())
        package = self.package
        if package is not None:
            self.health.number("app", lambda: package.identity)


def _ended(chores: asyncio.Task[None], runner: Runner) -> None:
    """Without chores no window of a silent device closes and no release is taken over: end, to begin anew."""
    if not chores.cancelled() and (error := chores.exception()) is not None:
        runner.lane.fail(f"the chores of this worker ended: {one_line(error)}")


def _condition(runner: Runner) -> Part:
    """Whether the agents of this worker can do their work, and if not, why."""
    lane, checkpoint = runner.lane, runner.checkpoint
    numbers = {"partitions": len(lane.progress), "checkpoints": checkpoint.count}
    if not runner.assigned:
        return Part(False, "waiting for partitions", **numbers)
    for name, reason in lane.stopped.items():
        return Part(False, f"agent {name} stopped: {reason}", **numbers)
    for name, reason in lane.waiting.items():
        return Part(False, f"agent {name} waits: {reason}", **numbers)
    if checkpoint.failing:
        return Part(False, f"checkpoint waits: {checkpoint.failing}", **numbers)
    for (topic, number), progress in lane.progress.items():
        if progress.stalled(STALLED_SECONDS, time.monotonic()):
            return Part(False, f"{topic}-{number} has lag and makes no progress", **numbers)
    return Part(True, f"{len(lane.agents)} agents", **numbers)


def _measure(runner: Runner) -> None:
    now = time.monotonic()
    for place, lag in (runner.faust.lag() if runner.assigned else {}).items():
        progress = runner.lane.progress[place]
        progress.look(lag, now)
        metrics.LAG.labels(*place).set(lag)
        metrics.SINCE_PROGRESS.labels(*place).set(now - max(progress.moved_at, progress.behind_since) if lag else 0.0)
    for agent, count in runner.lane.buffered().items():
        metrics.BUFFERED.labels(agent).set(count)
    metrics.PRODUCE_BACKLOG.set(runner.producer.unacknowledged)
    metrics.PRODUCE_BACKLOG_BYTES.set(runner.producer.buffered_bytes)
    pending = [p.moved_at for p in runner.lane.progress.values() if p.acknowledged() > p.committed]
    metrics.OLDEST_UNSTORED.set(now - min(pending) if pending else 0.0)

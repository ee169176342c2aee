"""The lane, its checkpoint and Faust as one thing that can be started and stopped.

Partitions come: their tables are recovered, then their agents begin. Partitions go, or the
process stops: the batches in hand are finished (bounded in time), a last checkpoint is
taken, and only then are they let go.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence

from tpstream.bus.agent import Agent, Services
from tpstream.bus.attempt import one_line
from tpstream.bus.changelog import Changelogs, Superseded
from tpstream.bus.checkpoint import Checkpoint, OnRejected
from tpstream.bus.faust_app import LaneApp
from tpstream.bus.lane import Lane
from tpstream.bus.position import NO_LIFE, Life
from tpstream.bus.producer import Producer
from tpstream.bus.progress import Place
from tpstream.bus.provision import read_life
from tpstream.bus.recovery import recover
from tpstream.bus.sink import Sink
from tpstream.bus.standby import Standby
from tpstream.bus.state import PartitionState, StateFolder, pin_partitions
from tpstream.bus.table_partition import TablePartition
from tpstream.bus.topic_sink import TopicSink
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable

log = logging.getLogger(__name__)

LIFE_EVERY = 5.0
"""Seconds between two looks at which life the topics are in."""

FAUST_STOP = 5.0
"""Seconds that Faust gets to leave the group and stop."""


class Runner:
    """Runs agents of one consumer group; `faust` is the Faust app that serves the web, too."""

    def __init__(
        self,
        group: str,
        agents: Sequence[Agent],
        services: Services,
        producer: Producer,
        *,
        sinks: Sequence[Sink] = (),
        interval: float,
        web_port: int | None = None,
        on_rejected: OnRejected,
    ) -> None:
        self.group = group
        self.settings = services.settings
        self.producer = producer
        self.life = NO_LIFE
        self.assigned = False
        self.on_release: list[Callable[[], None]] = []
        """Called when the partitions have been let go."""
        self.faust = LaneApp(group, self.settings, web_port=web_port)
        topic_sink = TopicSink(producer)
        self.lane = Lane(agents, services, topic_sink, pause=self.faust.pause_lane, resume=self.faust.resume_lane)
        topic_sink.on_settled = self.lane.settled
        tables = tuple({table.name: table for agent in agents for table in agent.tables}.values())
        self.changelogs = Changelogs(self.settings.bootstrap, producer, group, tables)
        self.checkpoint = Checkpoint(
            self.lane,
            producer,
            [topic_sink, *sinks],
            self.changelogs,
            lambda offsets: self.faust.consumer.commit_lane(offsets),
            lambda: self.faust.consumer.still_member(),
            on_rejected,
            group.removeprefix("tpstream-"),
        )
        self.standby: Standby | None = None
        """Follows the partitions that this worker may have to take over; None: it does not run, or has no tables."""
        self.faust.subscribe_lane(self.lane)
        self.faust.when_assigned, self.faust.when_revoked = self._on_assigned, self._on_revoked
        self._interval = interval
        self._folder: StateFolder | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises TpstreamError where Faust gives up or the topics have a new life."""
        if self.checkpoint.tables:
            settings = self.settings
            self._folder = StateFolder(settings.data_dir / "state", self.group, settings.instance)
            pin_partitions(self._folder.path, settings.partitions)
            self.standby = Standby(settings.bootstrap, self.group, self._folder.path, self.checkpoint.tables)
        checkpoints = asyncio.create_task(self.checkpoint.run(self._interval))
        starting = asyncio.create_task(self.faust.start())
        watching = [
            asyncio.create_task(self._watch_faust(starting)),
            asyncio.create_task(self._watch_life()),
            asyncio.create_task(self._watch_lane()),
            asyncio.create_task(stop.wait()),
        ]
        try:
            await asyncio.wait([checkpoints, *watching], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in watching:
                task.cancel()
            await self._finish(checkpoints)
            if self.standby is not None:
                await self.standby.close()
            await self._stop_faust()
            starting.cancel()
            if self._folder is not None:
                self._folder.close()
        for task in (checkpoints, *watching):
            if task.done() and not task.cancelled() and (error := task.exception()):
                raise error

    def lag(self) -> int:
        """Records behind the ends of all assigned partitions; -1: none are assigned yet."""
        return sum(self.faust.lag().values()) if self.assigned else -1

    async def _on_assigned(self, places: set[Place]) -> None:
        try:
            await self._take_over(places)
        except Exception as error:
            # The Kafka client would log this and go on, and we would wait for partitions for ever.
            self.lane.fail(str(error) if isinstance(error, TpstreamError) else one_line(error))
            raise

    async def _take_over(self, places: set[Place]) -> None:
        record = await read_life(self.settings.bootstrap)
        if record is None:
            raise TpstreamError(
                "tp.life.v1 is empty: the topics were not made by tpstream; `tpstream topics` shows them"
            )
        self.life = Life(bytes.fromhex(record.id))
        numbers = self._numbers(places)
        if self.standby is not None:
            self.checkpoint.states = await self._recover(self.standby, numbers)
            standing_by = self.faust.standby_numbers() - numbers if self.settings.standbys else set()
            await self.standby.follow(standing_by, self.life)
        self.lane.assign(places, self.life)
        self.assigned = True
        log.info("%d partitions of %d topics assigned", len(places), len(self.lane.topics))

    def _numbers(self, places: set[Place]) -> set[int]:
        """The partition numbers whose tables are ours.

        Raises TpstreamError where an agent with tables has not the same of each of its topics.
        """
        for agent in self.lane.agents:
            of_each = {topic.name: {number for name, number in places if name == topic.name} for topic in agent.topics}
            if agent.tables and len(set(map(frozenset, of_each.values()))) > 1:
                raise TpstreamError(
                    f"agent {agent.name} was given different partitions of its topics ({of_each}): "
                    f"all workers of a group must run the same agents"
                )
        joined = self.lane.joined
        return {number for topic, number in places if topic in joined}

    async def _recover(self, standby: Standby, numbers: set[int]) -> dict[int, PartitionState]:
        """Open and bring up the state of these partitions, fill the tables from it, and become their owner."""
        assert self._folder is not None
        settings, tables = self.settings, self.checkpoint.tables
        states = await standby.give(numbers)
        try:
            for number in sorted(numbers - set(states)):
                states[number] = PartitionState.open(self._folder.path / str(number), self.life)
            ends = await recover(settings.bootstrap, self.group, self.life, tables, states)
            bound = max(1_000, settings.table_keys // max(1, len(states)))
            for number, state in states.items():
                for table in tables:
                    part = table.partitions[number] = TablePartition(table, number, self.life, state, bound)
                    for key in state.meta.out_of_turn.get(table.name, ()) if state.life == self.life else ():
                        part.write_again(key)
            await self.changelogs.begin(states, ends)
        except BaseException:
            for state in states.values():
                state.close()
            raise
        return states

    async def _on_revoked(self, places: set[Place]) -> None:
        if self.assigned:
            await self._hand_over(self.settings.session_timeout / 3)

    async def _finish(self, checkpoints: asyncio.Task[None]) -> None:
        if self.assigned:
            await self._hand_over(4.0)  # meanwhile checkpoints go on: a batch may wait for the room that one makes
        self.checkpoint.stopping = True
        self.lane.full.set()
        await asyncio.wait([checkpoints], timeout=0.5)
        checkpoints.cancel()

    async def _hand_over(self, patience: float) -> None:
        """Finish the batches in hand, take a last checkpoint, let go; each step bounded in time."""
        self.assigned = False
        await self.lane.drain(patience)
        try:
            async with asyncio.timeout(patience):
                await self.checkpoint.take()
        except (TimeoutError, Superseded, TpstreamError) as error:
            log.warning("the last checkpoint was not finished (%r); what it held comes again", error)
        self.lane.release()
        self.checkpoint.let_go()
        for call in self.on_release:
            call()

    async def _stop_faust(self) -> None:
        try:
            async with asyncio.timeout(FAUST_STOP):
                await self.faust.stop()
        except TimeoutError:
            log.warning("Faust did not stop within %.0f s; leaving it", FAUST_STOP)

    async def _watch_faust(self, starting: asyncio.Task[None]) -> None:
        try:
            await starting
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            where = f"{self.settings.host}:{self.settings.web_port}"
            raise ConfigurationError(f"{where} has been taken; set TPSTREAM_WEB_PORT to a free port") from None
        await self.faust.wait_until_stopped()
        raise TpstreamError(f"Faust stopped: {self.faust.crash_reason or 'no reason given'}")

    async def _watch_lane(self) -> None:
        """An agent's task that ended by an error leaves a partition standing still: start anew."""
        await self.lane.failed.wait()
        raise TpstreamError(f"{self.lane.failure}; this worker starts anew")

    async def _watch_life(self) -> None:
        """A life that began under our feet: start anew, as nothing in hand means anything in it."""
        while True:
            await asyncio.sleep(LIFE_EVERY)
            try:
                record = await read_life(self.settings.bootstrap)
            except Unavailable:
                continue
            if record is not None and self.assigned and bytes.fromhex(record.id) != self.life:
                raise TpstreamError(f"the topics have a new life ({record.id}); this worker starts anew")

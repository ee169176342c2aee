"""What the owner of a raw partition appends to it: ticks and configuration records.

So that no fold reads a clock, time that passes in silence is a record too; so that a replay
uses the configuration that was in force, taking over a new one is a record as well. Users' own
topics get ticks where a table that an agent fills from them is due.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from tpstream.bus import topics
from tpstream.bus.envelope import Kind, RawHeader, WayIn
from tpstream.bus.lane import Lane
from tpstream.bus.producer import Producer
from tpstream.bus.progress import Place
from tpstream.bus.table import Table

log = logging.getLogger(__name__)

TICK_EVERY_MS = 1_000
"""Between two ticks of a partition, ms: how late a window of a silent device may close."""


class PartitionOwner:
    """Appends to the raw partitions that this worker owns. Only the role `process` has one."""

    def __init__(
        self, lane: Lane, producer: Producer, tables: Sequence[Table[Any]], epochs: Mapping[int, int] | None = None
    ) -> None:
        """`epochs`: of each owned partition (`tpstream.bus.changelog`); what is appended carries it as its session."""
        self._lane = lane
        own = topics.names()
        self._users = {
            topic.name: agent.tables
            for agent in lane.agents
            for topic in agent.topics
            if agent.tables and not any(t.name in own for t in agent.topics)
        }
        """Users' topics, and the tables of the agents that read nothing that is made of the raw topic."""
        self._with_ticks = {topic.name for agent in lane.agents for topic in agent.topics if topic.ticks}
        self._epochs = {} if epochs is None else epochs
        self._producer = producer
        users = {table.name for tables in self._users.values() for table in tables}
        self._tables = [table for table in tables if table.name not in users]
        self._ticked: dict[Place, int] = {}
        self._announced: dict[int, str] = {}

    def release(self) -> None:
        """Forget what was appended where: the partitions may be another's now."""
        self._ticked.clear()
        self._announced.clear()

    def tick(self, now: int) -> int:
        """Append a tick where something is due and the partition's clock has not reached it; how many.

        None while Kafka is away: they would pile up in memory, and say nothing new when it is back.
        """
        if not self._producer.available:
            return 0
        return sum(self._tick(place, tables, now) for place, tables in self._due_on())

    def _due_on(self) -> Iterator[tuple[Place, Sequence[Table[Any]]]]:
        """The partitions in which time is to pass, and for which tables."""
        for place, progress in self._lane.progress.items():
            if place[0] == topics.uplink_raw.name:
                yield place, self._tables
            elif (
                place[0] in self._users
                and place[0] in self._with_ticks
                and not progress.buffered
                and not progress.behind_since
            ):
                # In a user's topic only where all is read that others have written: what is due
                # there in a history is closed by what stands behind it.
                yield place, self._users[place[0]]

    def _tick(self, place: Place, tables: Sequence[Table[Any]], now: int) -> bool:
        topic, number = place
        clock = self._lane.progress[place].clock
        due = min((at for table in tables if (at := table.at(number).next_due()) is not None), default=None)
        # A clock that was put back is no reason to wait until it is where it was.
        if due is None or due > now or 0 <= now - self._ticked.get(place, 0) < TICK_EVERY_MS:
            return False
        if clock >= due and now - due < TICK_EVERY_MS:
            # What moved the clock may be on its way to the table. Not for ever: a tick reaches every
            # agent, while of a busy partition's telemetry a table of commands never hears.
            return False
        # Without a value in a user's topic: to everybody else's eyes a tombstone of the empty key.
        self._append(topic, number, Kind.TICK, b"" if topic == topics.uplink_raw.name else None, now)
        self._ticked[place] = now
        return True

    def configure(self, release: str, now: int) -> None:
        """Append a configuration record to every owned partition that has not got this release."""
        for number in self._owned():
            if release and self._announced.get(number) != release:
                self._append(
                    topics.uplink_raw.name, number, Kind.CONFIGURATION, msgspec.json.encode({"release": release}), now
                )
                self._announced[number] = release

    def _owned(self) -> list[int]:
        return [number for topic, number in self._lane.progress if topic == topics.uplink_raw.name]

    def _append(self, topic: str, number: int, kind: Kind, value: bytes | None, now: int) -> None:
        header = RawHeader(kind, way_in=WayIn.OWNER, session=self._epochs.get(number, 0)).pack()
        self._producer.add(topic, number, b"", value, (("tp", header),), now)

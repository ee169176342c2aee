"""What the owner of a raw partition appends to it: ticks and configuration records.

So that no fold reads a clock, time that passes in silence is a record too; so that a replay
uses the configuration that was in force, taking over a new one is a record as well.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tpstream.bus import topics
from tpstream.bus.envelope import Kind, RawHeader, WayIn
from tpstream.bus.lane import Lane
from tpstream.bus.producer import Producer
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
        self._epochs = {} if epochs is None else epochs
        self._producer = producer
        self._tables = tables
        self._ticked: dict[int, int] = {}
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
        count = 0
        for number in self._owned():
            clock = self._lane.progress[topics.uplink_raw.name, number].clock
            due = [at for table in self._tables if (at := table.at(number).next_due()) is not None]
            # A clock that was put back is no reason to wait until it is where it was.
            if not due or min(due) > now or 0 <= now - self._ticked.get(number, 0) < TICK_EVERY_MS:
                continue
            if clock >= min(due) and now - min(due) < TICK_EVERY_MS:
                # What moved the clock may be on its way to the table. Not for ever: a tick reaches every
                # agent, while of a busy partition's telemetry a table of commands never hears.
                continue
            self._append(number, Kind.TICK, b"", now)
            self._ticked[number] = now
            count += 1
        return count

    def configure(self, release: str, now: int) -> None:
        """Append a configuration record to every owned partition that has not got this release."""
        for number in self._owned():
            if release and self._announced.get(number) != release:
                self._append(number, Kind.CONFIGURATION, msgspec.json.encode({"release": release}), now)
                self._announced[number] = release

    def _owned(self) -> list[int]:
        return [number for topic, number in self._lane.progress if topic == topics.uplink_raw.name]

    def _append(self, number: int, kind: Kind, value: bytes, now: int) -> None:
        header = RawHeader(kind, way_in=WayIn.OWNER, session=self._epochs.get(number, 0)).pack()
        self._producer.add(topics.uplink_raw.name, number, b"", value, (("tp", header),), now)

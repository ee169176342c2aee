"""One batch and the windows of its partition: what is done seldom, beside the loops over records.

`agents/windows.py` folds telemetry, `over_topic.py` a user's own topic; both have a loop that
costs as little as it can for a message that neither opens nor closes anything, and come here
for the rest.
"""

from __future__ import annotations

from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record
from tpstream.bus.cell import Cell
from tpstream.bus.position import Position
from tpstream.bus.table_partition import TablePartition
from tpstream.messages import LatePoint, WindowResult
from tpstream.observability import metrics
from tpstream.windows.fold import Folded, expire
from tpstream.windows.state import NEVER, Definitions, DeviceWindows

PARTITION = ""
"""The key of the partition's own clock; no device has an empty number."""

RESULTS_PER_RECORD = 1 << 16
"""Room between the positions of two items of a raw record, for the windows that each closes."""


class PartitionWindows:
    """The windows of a batch's partition. Time is its clock: the highest record timestamp, ticks included."""

    def __init__(self, batch: Batch, part: TablePartition[DeviceWindows], definitions: Definitions) -> None:
        self.batch = batch
        self.part = part
        self.definitions = definitions
        known = part.get(PARTITION)
        self.reached = 0 if known is None else known.heard
        """The clock as earlier batches left it."""
        self._into = batch.partition if batch.topic is topics.uplink_telemetry else None
        # Telemetry is spread as results are; a user's topic may be spread otherwise.

    def clock_at(self, clock: int, position: Position) -> int:
        """The clock for a record, where its batch has only come to `clock`.

        Replayed input has its own time; for what is new, the clock that was reached is ahead of it.
        """
        return clock if self.part.seen(PARTITION, position) else max(clock, self.reached)

    def pass_time(self, record: Record, clock: int) -> int:
        """Close the windows of devices that are silent at `clock`; the clock at which to look again."""
        part = self.part
        for device in part.due(clock):
            cell = part.cell(device)
            if cell.value is not None:
                self.take(record, cell, expire(cell.value, clock, self.definitions), clock)
        return part.quiet_until()

    def take(self, record: Record, cell: Cell, folded: Folded, clock: int) -> int:
        """Send what came forth, and set the device's timer; the clock at which that wants attention."""
        if cell.value.due < cell.armed:
            self.part.arm(cell)
        if folded.closed or folded.late:
            self._send(record, cell.key, folded, clock)
        return cell.armed

    def _send(self, record: Record, device: str, folded: Folded, clock: int) -> None:
        """The closed windows, each at a position of its own within the record that closed it, and the late points."""
        send, into, timestamp = self.batch.send, self._into, record.timestamp
        _, position, origin = self.batch.derived(record)
        for n, c in enumerate(folded.closed):
            send(
                topics.windows,
                WindowResult(c.window, device, c.key, c.start, c.end, c.aggregate, c.value, c.count, clock),
                key=device,
                position=_within(position, n),
                origin=_within(origin, n),
                timestamp=timestamp,
                partition=into,
            )
        if not folded.late:
            return
        metrics.LATE_POINTS.labels("window").inc(len(folded.late))
        for n, late in enumerate(folded.late):
            p = late.point
            send(
                topics.late,
                LatePoint(device, p.key, p.ts, "window", p.number, p.text, late.window),
                key=device,
                position=_within(position, n),
                origin=_within(origin, n),
                timestamp=timestamp,
                partition=into,
            )

    def finish(self, clock: int, newest: dict[int, Position]) -> None:
        """Keep the clock, and what it has folded: the newest position of each raw partition."""
        part, clock = self.part, max(clock, self.reached)
        for position in newest.values():
            if not part.seen(PARTITION, position):
                part.put(PARTITION, DeviceWindows("", NEVER, clock), position)


def _within(position: Position, n: int) -> Position:
    item = (position.item * RESULTS_PER_RECORD + n) & 0xFFFFFFFF
    return position.at(item) if item != position.item else position

"""Repeats among the records of a raw partition: what `repeats` says, over what the table remembers."""

from __future__ import annotations

from zlib import crc32

import msgspec

from tpstream.bus.cell import Cell
from tpstream.bus.envelope import WayIn
from tpstream.bus.position import Position
from tpstream.bus.stored import NEVER
from tpstream.bus.table_partition import TablePartition
from tpstream.uplink.repeats import (
    LATE_MS,
    NOTHING,
    Heard,
    Limits,
    PartitionMemory,
    forgotten_from,
    full,
    is_repeat,
    kept,
    pack,
    was_dropped,
    with_offset,
    with_record,
)

PARTITION = ""
"""The key of what belongs to the partition itself; no device has an empty number."""

_ENDPOINT, _BROKER = int(WayIn.ENDPOINT), int(WayIn.BROKER)
_LOOK = 0xF4
"""The flags DUP and way in: of a first sending at the endpoint none is set."""


class Hearing:
    """One batch of raw records, each heard once, in order. `close` keeps what was heard."""

    __slots__ = (
        "_cells",
        "_folded",
        "_full",
        "_kept",
        "_limits",
        "_memory",
        "_partition",
        "_serial",
        "_table",
        "devices",
        "retried",
    )

    def __init__(self, table: TablePartition[Heard], limits: Limits) -> None:
        self._table = table
        self._limits = limits
        self._partition = table.partition
        self._cells = table.cells
        self._serial = table.serial
        self._full, self._kept = full(limits), kept(limits)
        cell = table.cell(PARTITION)
        self._folded = cell.offset if cell.partition == self._partition else -1
        self._memory = PartitionMemory(cell.value or NOTHING, self._folded)
        self.retried = self._memory.retried
        """Whether a bridge produced a record again: offset, incarnation, sequence. For every record, in order."""
        self.devices = 0
        """How many records devices, or their brokers, had sent before."""

    def resent(
        self, offset: int, ms: int, device: str, value: bytes, start: int, flags: int, session: int, packet_id: int
    ) -> bool:
        """Whether a publish of QoS 1 was sent before. For every one that is not `retried`, in order.

        `ms`: its delivery; `start`: CRC-32 of its topic; flags, session and packet id as in its header `tp`.
        """
        cell = self._cells.get(device) or self._table.cell(device)
        tag = (session & 0x7FFF_FFFF) << 1 | flags >> 2 & 1
        print_ = crc32(value, start)
        heard: Heard | None = cell.value
        # Nearly all: at the endpoint, without DUP, and of a device that is known here in this life.
        if (
            flags & _LOOK
            or heard is None
            or offset <= cell.offset
            or offset <= self._folded
            or cell.partition != self._partition
        ):
            return self._look(cell, offset, ms, tag, print_, flags, session, packet_id)
        records = heard.records
        if len(records) >= self._full:
            records = records[-self._kept :]
        heard = Heard(records + pack(tag, packet_id, print_, ms // 1000 & 0xFFFF_FFFF), heard.dropped)
        if cell.serial != self._serial:
            self._table.touch(cell)
        cell.value, cell.offset, cell.item = heard, offset, 0
        return False

    def _look(
        self, cell: Cell, offset: int, ms: int, tag: int, print_: int, flags: int, session: int, packet_id: int
    ) -> bool:
        """The same for whatever is not everyday."""
        limits, memory, way_in = self._limits, self._memory, flags >> 4
        if way_in not in (_ENDPOINT, _BROKER):
            return False
        heard = NOTHING
        fresh = offset > self._folded
        behind = way_in == _BROKER and fresh and memory.advance(session, packet_id) and limits.snapshot_seconds > 0
        if cell.partition == self._partition:  # else it is new, or of another life
            heard = cell.value
            if offset <= cell.offset:  # what stands there is folded: the same as the first time
                return was_dropped(heard.dropped, offset)
        again = (
            fresh
            and bool(tag & 1 or behind)
            and is_repeat(heard.records, tag, packet_id, print_, ms, limits, behind=behind)
        )
        if again:
            memory.drop(offset)
            self.devices += 1
            heard = Heard(heard.records, with_offset(heard.dropped, offset))
        else:
            heard = Heard(with_record(heard.records, tag, packet_id, print_, ms, limits), heard.dropped)
        if cell.serial != self._serial:
            self._table.touch(cell)
        cell.value = heard
        cell.partition, cell.offset, cell.item = self._partition, offset, 0
        if cell.armed == NEVER:  # else its timer stands no later than this is due
            self._table.arm(cell)
        return again

    @property
    def retries(self) -> int:
        """How many records a bridge had produced before."""
        return self._memory.retries

    def close(self, last: Position, clock: int) -> None:
        """The batch is heard: its last record's position, and the highest delivery time in it, ms."""
        if last.offset <= self._folded:
            return
        memory = self._memory.closed(clock)
        self._table.put(PARTITION, memory, last)
        self._forget(memory.clock)

    def _forget(self, clock: int) -> None:
        """Delete what was heard of devices that have been silent for so long that nothing can repeat it.

        A crash may leave a deletion in the changelog and not the commit; then the partition's memory has to
        know what was dropped of that device. So it must stand before the deletion: what was written
        before it since the last checkpoint is looked at again later.
        """
        table = self._table
        for device in table.due(clock):
            cell = table.cell(device)
            heard = cell.value
            kept_until = forgotten_from(heard, self._limits)
            if cell.dirty or (cell.partition == self._partition and cell.offset > self._folded):
                kept_until = max(kept_until, clock + LATE_MS)
            if kept_until <= clock:
                table.delete(device)
            else:
                table.put(device, msgspec.structs.replace(heard, clock=kept_until))

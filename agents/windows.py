"""Telemetry into event-time windows: folds points per device and key, sends each closed window once.

A thin shell over `tpstream.windows.fold`. Time is the partition's clock: the highest record
timestamp seen, ticks included.
"""

from __future__ import annotations

from functools import lru_cache

from tables.windows import PARTITION, windows
from tpstream.app import app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.position import Position
from tpstream.errors import TpstreamError
from tpstream.messages import LatePoint, WindowResult
from tpstream.observability import metrics
from tpstream.windows.definition import Window
from tpstream.windows.fold import NEVER, Folded, expire, fold
from tpstream.windows.state import Definitions, DeviceWindows

RESULTS_PER_RECORD = 1 << 16
"""Room between the positions of two items of a raw record, for the windows that each closes."""


@app.batch_agent(topics.uplink_telemetry, tables=(windows,), name="windows")
async def fold_windows(batch: Batch) -> None:
    """Fold each message; on every record, ticks included, close what silence has closed."""
    state = windows.of(batch)
    definitions = _arranged(tuple(app.windows.values()))
    decode = batch.topic.decode
    known = state.get(PARTITION)
    reached = known.heard if known is not None else 0
    clock = 0
    newest: dict[int, Position] = {}
    for record in batch:
        derived = batch.derived(record)
        position = derived.position
        clock = max(clock, record.timestamp)
        if clock < reached and not state.seen(PARTITION, position):
            clock = reached  # replayed input has its own time: the clock that was reached is ahead of it
        newest[position.partition] = position
        for device in state.due(clock):
            if (silent := state.get(device)) is not None:
                folded = expire(silent, clock, definitions)
                state.put(device, folded.state)
                _send(batch, record, derived, device, folded, clock)
        if derived.kind is not Kind.PUBLISH:
            batch.control(topics.windows, record, derived.kind)
        elif record.value is not None:
            message = decode(record.value)
            device = message.device
            if not device:
                raise TpstreamError(f"{batch.topic.name}: a message without a device; give it its device number")
            if not state.seen(device, position):
                folded = fold(state.get(device), message.points, record.timestamp, definitions)
                state.put(device, folded.state, position)
                if folded.closed or folded.late:
                    _send(batch, record, derived, device, folded, clock)
    for position in newest.values():
        state.put(PARTITION, DeviceWindows(NEVER, max(clock, reached)), position)


@lru_cache(maxsize=8)
def _arranged(definitions: tuple[Window, ...]) -> Definitions:
    return Definitions.of(definitions)


def _send(batch: Batch, record: Record, derived: DerivedHeader, device: str, folded: Folded, clock: int) -> None:
    """The closed windows, each at a position of its own within the record that closed it, and the late points."""
    for n, c in enumerate(folded.closed):
        batch.send(
            topics.windows,
            WindowResult(c.window, device, c.key, c.start, c.end, c.aggregate, c.value, c.count, clock),
            key=device,
            position=_within(derived.position, n),
            origin=_within(derived.origin, n),
            timestamp=record.timestamp,
            partition=batch.partition,
        )
    if folded.late:
        metrics.LATE_POINTS.labels("window").inc(len(folded.late))
    for n, late in enumerate(folded.late):
        p = late.point
        batch.send(
            topics.late,
            LatePoint(device, p.key, p.ts, "window", p.number, p.text, late.window),
            key=device,
            position=_within(derived.position, n),
            origin=_within(derived.origin, n),
            timestamp=record.timestamp,
            partition=batch.partition,
        )


def _within(position: Position, n: int) -> Position:
    return position.at((position.item * RESULTS_PER_RECORD + n) & 0xFFFFFFFF)

"""Telemetry into event-time windows: folds points per device and key, sends each closed window once.

A thin shell over `tpstream.windows.fold`. Time is the partition's clock: the highest record
timestamp seen, ticks included.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from tables.windows import windows
from tpstream.app import app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, kind_of
from tpstream.bus.envelope import Kind, position_in
from tpstream.bus.position import Position
from tpstream.errors import TpstreamError
from tpstream.windows.definition import Window
from tpstream.windows.fold import NOTHING, begun, fold
from tpstream.windows.partition import PartitionWindows
from tpstream.windows.state import Definitions


@app.batch_agent(topics.uplink_telemetry, tables=(windows,), name="windows")
async def fold_windows(batch: Batch) -> None:
    """Fold each message; on every record, ticks included, close what silence has closed."""
    part = windows.of(batch)
    cells, serial, touch = part.cells, part.serial, part.touch
    definitions = _arranged(tuple(app.windows.values()))
    here = PartitionWindows(batch, part, definitions)
    decode = batch.topic.decoder.decode
    publish = Kind.PUBLISH
    clock = look = 0
    newest: dict[int, Position] = {}
    try:
        for record in batch.records:
            headers = record.headers
            if headers and headers[0][0] == "tp":
                data = headers[0][1]
                position, kind = position_in(data), data[1]
            else:
                position, kind = batch.position(record), kind_of(record)
            _, partition, offset, item = position
            newest[partition] = position
            timestamp = record.timestamp
            if timestamp > clock:
                clock = timestamp
            if clock < here.reached:
                clock = here.clock_at(clock, position)
            if clock >= look:
                look = here.pass_time(record, clock)
            if kind != publish:
                batch.control(topics.windows, record, Kind(kind))
                continue
            if record.value is None:
                continue
            message = decode(record.value)
            device = message.device
            if not device:
                raise TpstreamError(f"{batch.where(record)}: a message without a device; give it its device number")
            cell = cells.get(device) or part.cell(device)
            if cell.partition == partition:
                if offset < cell.offset or (offset == cell.offset and item <= cell.item):
                    continue
                if cell.serial != serial:
                    touch(cell)
                cell.offset, cell.item = offset, item
            elif part.folded(cell, position):
                continue
            else:
                touch(cell)
                part.mark(cell, position)
            state = cell.value
            if state is None:
                state = cell.value = begun(timestamp, definitions)
            folded = fold(state, message.points, timestamp, definitions, clock)
            if folded is not NOTHING:
                look = min(look, here.take(record, cell, folded, clock))
    except msgspec.DecodeError as error:
        raise TpstreamError(f"{batch.where(record)}: {error}") from None
    here.finish(clock, newest)


@lru_cache(maxsize=8)
def _arranged(definitions: tuple[Window, ...]) -> Definitions:
    return Definitions.of(window for window in definitions if not window.topic)

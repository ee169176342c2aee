"""Windows over a user's topic of plain JSON objects: an agent and a table for each such topic.

The device is the Kafka key. Records without tpstream's headers stand for themselves: their
position is their place in the topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from tpstream.bus.agent import Handler
from tpstream.bus.batch import Batch, foreign, kind_of
from tpstream.bus.envelope import Kind
from tpstream.bus.position import Position
from tpstream.bus.table import Table
from tpstream.errors import TpstreamError
from tpstream.windows.definition import Window
from tpstream.windows.fields import ManyFields, OneField, as_number, fields_of
from tpstream.windows.fold import NOTHING, begun, fold, fold_one
from tpstream.windows.partition import PartitionWindows
from tpstream.windows.state import Definitions, DeviceWindows, due, kept, restored

if TYPE_CHECKING:
    from tpstream.bus.topics import Topic


def agent_of(topic: Topic[Any]) -> str:
    """The name of the agent, and of the table, that folds a topic's windows."""
    return f"windows-{topic.name}"


def table_of(topic: Topic[Any]) -> Table[DeviceWindows]:
    """The table of a topic's open windows, by device."""
    return Table(agent_of(topic), DeviceWindows, due=due, copy=kept, restore=restored)


def handler_of(topic: Topic[Any], table: Table[DeviceWindows], declared: Callable[[], Iterable[Window]]) -> Handler:
    """The agent's handler; `declared` gives all windows that there are."""

    async def fold_topic(batch: Batch) -> None:
        _fold_batch(batch, table, tuple(window for window in declared() if window.topic == topic.name))

    return fold_topic


def _fold_batch(batch: Batch, table: Table[DeviceWindows], windows: tuple[Window, ...]) -> None:
    """As in `agents/windows.py`, where each record has tpstream's header, and here hardly any."""
    definitions, fields = _arranged(windows)
    part = table.of(batch)
    cells, serial, touch = part.cells, part.serial, part.touch
    here = PartitionWindows(batch, part, definitions)
    key, points_of = (fields.key, None) if isinstance(fields, OneField) else ("", fields.points)
    decode: Callable[[bytes], Any] = fields.decode
    own = foreign(batch.topic.name, batch.partition)
    clock = look = 0
    last = -1
    newest: dict[int, Position] = {}
    try:
        for record in batch.records:
            partition, offset, item, kind = own, record.offset, 0, Kind.PUBLISH
            if record.headers:
                _, partition, offset, item = position = batch.position(record)
                newest[partition] = position
                kind = kind_of(record)
            if partition == own:
                last = offset
            timestamp = record.timestamp
            if timestamp > clock:
                clock = timestamp
            if clock < here.reached:
                clock = here.clock_at(clock, batch.position(record))
            if clock >= look:
                look = here.pass_time(record, clock)
            value = record.value
            if value is None or kind is not Kind.PUBLISH:
                continue
            message = decode(value)
            device = (record.key or b"").decode()
            if not device:
                raise TpstreamError(f"{batch.where(record)}: a record without a key; give it its device number as key")
            cell = cells.get(device) or part.cell(device)
            if cell.partition == partition:
                if offset < cell.offset or (offset == cell.offset and item <= cell.item):
                    continue
                if cell.serial != serial:
                    touch(cell)
                cell.offset, cell.item = offset, item
            elif part.folded(cell, position := batch.position(record)):
                continue
            else:
                touch(cell)
                part.mark(cell, position)
            state = cell.value
            if state is None:
                state = cell.value = begun(timestamp, definitions)
            if points_of is None:
                number, ts = message.value, message.time
                if number.__class__ is not float:
                    number = as_number(number)
                folded = fold_one(state, key, timestamp if ts is None else ts, number, timestamp, definitions, clock)
            else:
                folded = fold(state, points_of(message, timestamp), timestamp, definitions, clock)
            if folded is not NOTHING:
                look = min(look, here.take(record, cell, folded, clock))
    except msgspec.DecodeError as error:
        raise TpstreamError(f"{batch.where(record)}: {error}") from None
    except UnicodeDecodeError:
        raise TpstreamError(f"{batch.where(record)}: its key {record.key!r:.60} is no UTF-8 text") from None
    if last >= 0:
        newest[own] = Position(batch.life, own, last)
    here.finish(clock, newest)


@lru_cache(maxsize=64)
def _arranged(windows: tuple[Window, ...]) -> tuple[Definitions, OneField | ManyFields]:
    return Definitions.of(windows), fields_of(windows)

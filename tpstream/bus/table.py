"""Checkpointed tables: state of a partition in memory, written at each checkpoint.

A handler reads and writes like a dict. What a failed batch wrote is put back as it was before
it. Every value carries the positions that it has folded, so replayed input changes nothing.
In memory are the keys in use, up to a bound; the others are in RocksDB and come when asked for.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from tpstream.bus import stored
from tpstream.bus.batch import Batch
from tpstream.bus.position import Life, Position
from tpstream.bus.stored import NEVER, Foreign, Newer
from tpstream.bus.timers import BUCKET_MS, Timers
from tpstream.errors import TpstreamError, Unavailable
from tpstream.observability import metrics

log = logging.getLogger(__name__)

V = TypeVar("V")

_made = tuple.__new__

Mark = tuple[int, int, int]
"""Raw partition, offset, index: the newest position folded of that raw partition."""

NOWHERE = -1
"""The partition in a cell that has no mark."""

__all__ = ["NEVER", "Cell", "Disk", "Mark", "Newer", "Prepared", "Table", "TablePartition", "Unstorable"]


class Disk(Protocol):
    """Where values are that are not in memory: `tpstream.bus.state.PartitionState`."""

    def get(self, table: str, key: str) -> bytes | None: ...
    def values(self, table: str) -> Iterator[tuple[str, bytes]]: ...
    def quarantine(self, table: str, key: str, data: bytes) -> None: ...


class Cell:
    """A key in memory: its value (None: absent) and the marks of what the value has folded."""

    __slots__ = (
        "armed",
        "dirty",
        "item",
        "key",
        "offset",
        "others",
        "partition",
        "serial",
        "stored",
        "used",
        "value",
        "writing",
    )

    key: str
    value: Any
    partition: int
    """Raw partition, offset and index of its newest mark; NOWHERE: it has none."""
    offset: int
    item: int
    others: tuple[Mark, ...]
    """Marks of further raw partitions."""
    serial: int
    """The batch that changed it last."""
    armed: int
    """The clock at which its timer stands, or NEVER."""
    dirty: bool
    """Changed since the last checkpoint."""
    writing: bool
    """In the checkpoint in hand, and not yet on disk."""
    stored: bool
    """A checkpoint has written it: its deletion is to be written, too."""
    used: bool
    """Since the last look for keys that can leave memory."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.value = None
        self.partition = NOWHERE
        self.offset = self.item = -1
        self.others = ()
        self.serial = -1
        self.armed = NEVER
        self.dirty = self.writing = self.stored = False
        self.used = True

    def marks(self) -> tuple[Mark, ...]:
        """All marks, the newest first."""
        if self.partition == NOWHERE:
            return self.others
        return ((self.partition, self.offset, self.item), *self.others)


class Unstorable(TpstreamError):
    """A value that an agent wrote cannot be made bytes of."""


class _Before(NamedTuple):
    """A cell as it was before the batch in hand."""

    cell: Cell
    value: Any
    partition: int
    offset: int
    item: int
    others: tuple[Mark, ...]


class Prepared(NamedTuple):
    """What a checkpoint writes of one table partition: encoded values by key, None: deleted."""

    values: dict[str, bytes | None]
    cells: list[Cell]


class TablePartition(Generic[V]):
    """One partition of a table. One batch of one agent works on it at a time.

    `disk` None: everything stays in memory. `bound`: keys kept in memory where there is a disk.
    """

    def __init__(
        self, table: Table[V], partition: int, life: Life, disk: Disk | None = None, bound: int = 100_000
    ) -> None:
        self.table = table
        self.partition = partition
        self.life = life
        self.serial = 0
        """The number of the batch in hand."""
        self.cells: dict[str, Cell] = {}
        """The keys in memory. For hot paths; all others use the methods."""
        self._disk = disk
        self._bound = bound
        self._trim_at = bound
        """Keys in memory above which it is worth while to look for some that can go."""
        self._sparse = False
        """Whether the disk may know keys that are not in memory."""
        self._undo: list[_Before] = []
        self._dirty: list[Cell] = []
        self._timers = Timers()
        self._soon: list[tuple[int, str]] = []
        self._until = 0
        """Timers before this clock are in `_soon`, a heap of exact times, and not in a bucket."""
        self._copy = table.copy
        if disk is not None:
            self._open(disk)

    # Like a dict

    def get(self, key: str) -> V | None:
        """The value of a key, or None."""
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cell(key)
        cell.used = True
        return cell.value  # type: ignore[no-any-return]

    def __getitem__(self, key: str) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        self.put(key, value)

    def __delitem__(self, key: str) -> None:
        if self.get(key) is None:
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def items(self) -> Iterator[tuple[str, V]]:
        """All keys and values, those on disk included: slow. Do not write while iterating."""
        yield from ((cell.key, cell.value) for cell in self.cells.values() if cell.value is not None)
        if self._disk is not None and self._sparse:
            for key, data in self._disk.values(self.table.name):
                if key not in self.cells:
                    yield key, self.table.decode(data)[0]

    def seen(self, key: str, position: Position) -> bool:
        """Whether the value has already folded what stands at this position."""
        if position.life != self.life:
            return False
        return self.folded(self.cells.get(key) or self.cell(key), position)

    def put(self, key: str, value: V, position: Position | None = None) -> None:
        """Replace the value; `position` is what this write has folded, None: nothing new."""
        cell = self.cells.get(key)
        if cell is None:
            cell = self.cell(key)
        if cell.serial != self.serial:
            self.touch(cell)
        cell.value = value
        if position is not None:
            if cell.partition == position[1]:
                cell.offset, cell.item = position[2], position[3]
            else:
                self.mark(cell, position)
        due = self.table.due
        if due is not None and (at := due(value)) is not None and at < cell.armed:
            self._arm(cell, at)

    def delete(self, key: str) -> None:
        """Remove a key; its tombstone is written at the next checkpoint."""
        cell = self.cell(key)
        if cell.value is not None:
            self.touch(cell)
            cell.value = None
            cell.partition, cell.others = NOWHERE, ()

    # By cells: the same for hot paths, without a call for each step

    def cell(self, key: str) -> Cell:
        """The cell of a key, from disk if need be; where there is no value, an empty one."""
        cell = self.cells.get(key)
        if cell is not None:
            return cell
        if type(key) is not str:
            raise TpstreamError(f"table {self.table.name}: a key is {type(key).__name__} {key!r:.40}, not str")
        cell = Cell(key)
        if self._sparse and self._disk is not None and (data := self._disk.get(self.table.name, key)) is not None:
            self._fill(cell, data)
        self.cells[key] = cell
        return cell

    @staticmethod
    def folded(cell: Cell, position: Position) -> bool:
        """Whether the cell has folded what stands at this position of the present life."""
        if cell.partition == position.partition:
            return (position.offset, position.item) <= (cell.offset, cell.item)
        for partition, offset, item in cell.others:
            if partition == position.partition:
                return (position.offset, position.item) <= (offset, item)
        return False

    def touch(self, cell: Cell) -> None:
        """Call before the first change of a cell in a batch (`cell.serial` is not yet `serial`)."""
        if cell.serial == self.serial:
            return
        cell.serial = self.serial
        cell.used = True
        value = cell.value
        kept = value if self._copy is None or value is None else self._copy(value)
        # tuple.__new__ is half the price of the named tuple's own, and this is once per key and batch.
        self._undo.append(_made(_Before, (cell, kept, cell.partition, cell.offset, cell.item, cell.others)))

    def mark(self, cell: Cell, position: Position) -> None:
        """Note that the cell has folded what stands at this position."""
        if cell.partition not in (position.partition, NOWHERE):
            cell.others = (
                (cell.partition, cell.offset, cell.item),
                *(mark for mark in cell.others if mark[0] not in (position.partition, cell.partition)),
            )
        cell.partition, cell.offset, cell.item = position[1], position[2], position[3]

    def arm(self, cell: Cell) -> None:
        """Have a cell's timer stand no later than its value is due; `put` does it by itself."""
        if cell.value is not None and self.table.due is not None:
            at = self.table.due(cell.value)
            if at is not None and at < cell.armed:
                self._arm(cell, at)

    # Timers: a value says when it is due; `Timers` is only an index over the values.

    def next_due(self) -> int | None:
        """The partition's clock (ms) at which the next value is due, or None."""
        while True:
            if (at := self._head()) is not None:
                return at
            if self._timers.head() is None:
                return None
            self._look_into()

    def quiet_until(self) -> int:
        """A clock before which no value is due, at most a second too early, or NEVER.

        Cheap however many values are due in that second, where `next_due` looks at each of them.
        """
        if (at := self._head()) is not None:
            return at
        number = self._timers.head()
        return NEVER if number is None else number * BUCKET_MS

    def due(self, clock: int) -> list[str]:
        """The keys due at or before the clock, earliest first; each once, until written again."""
        keys: list[str] = []
        while True:
            at = self._head()
            if at is None:
                number = self._timers.head()
                if number is None or number * BUCKET_MS > clock:
                    return keys
                self._look_into()
            elif at > clock:
                return keys
            else:
                key = heapq.heappop(self._soon)[1]
                cell = self.cell(key)
                self.touch(cell)
                cell.armed = NEVER
                keys.append(key)

    def _look_into(self) -> None:
        """Take the exact times of the earliest bucket."""
        number = self._timers.head()
        assert number is not None
        exact = []
        for key in self._timers.keys(number):  # it goes when all were read: the disk may fail
            armed = (self.cells.get(key) or self.cell(key)).armed
            if armed // BUCKET_MS == number:  # else an earlier one was armed since, or it is done
                exact.append((armed, key))
        self._timers.pop()
        self._until = (number + 1) * BUCKET_MS
        self._soon += exact
        heapq.heapify(self._soon)

    def _head(self) -> int | None:
        """The first of the exact times, brought up to date, or None."""
        soon, due = self._soon, self.table.due
        while soon:
            at, key = soon[0]
            cell = self.cells.get(key) or self.cell(key)
            actual = None if cell.value is None or due is None else due(cell.value)
            if cell.armed == at == actual:
                return at
            heapq.heappop(soon)
            if cell.armed == at:  # else an earlier one was armed since, or it is done
                cell.armed = NEVER
                if actual is not None:
                    self._arm(cell, actual)
        return None

    def _arm(self, cell: Cell, at: int) -> None:
        cell.armed = at
        self._remind(at, cell.key)

    def _remind(self, at: int, key: str) -> None:
        if at < self._until:
            heapq.heappush(self._soon, (at, key))
        else:
            self._timers.add(at, key)

    # What the lane and the checkpoint call.

    @property
    def dirty(self) -> int:
        """How many keys the next checkpoint will write."""
        return len(self._dirty)

    def accept(self) -> None:
        """The batch is done: its writes belong to the next checkpoint."""
        for before in self._undo:
            cell = before.cell
            if not cell.dirty:
                cell.dirty = True
                self._dirty.append(cell)
        self._undo.clear()
        self.serial += 1
        if len(self.cells) > self._trim_at and self._disk is not None:
            self._trim()
            # What could not go now will not before the next checkpoint: no look at all keys for every batch until then.
            self._trim_at = len(self.cells) + self._bound // 10

    def undo(self) -> None:
        """The batch failed: put back every value as it was before it."""
        self.serial += 1
        for cell, value, partition, offset, item, others in self._undo:
            cell.value = value
            cell.partition, cell.offset, cell.item, cell.others = partition, offset, item, others
            self.arm(cell)
        self._undo.clear()

    def prepare(self, stamp: int = 0) -> Prepared:
        """The values written since the last call, encoded; the caller makes them durable.

        Raises Unstorable where one cannot be encoded; then nothing is taken.
        """
        # A key that a batch in hand has written goes as it was before that batch.
        before = {id(saved.cell): saved for saved in self._undo}
        written: list[Cell] = []
        values: dict[str, bytes | None] = {}
        for cell in self._dirty:
            saved = before.get(id(cell)) if before else None
            value, marks = (cell.value, cell.marks()) if saved is None else (saved.value, _marks(saved))
            if value is None and not cell.stored:
                continue  # came and went between two checkpoints
            try:
                values[cell.key] = None if value is None else self.table.encode(value, marks, self.life, stamp)
            except Exception as error:  # whatever msgpack, or the user's `due`, makes of a user's value
                raise Unstorable(
                    f"table {self.table.name}, partition {self.partition}: the value of key {cell.key!r} cannot be "
                    f"stored ({type(error).__name__}: {error}); mend the agent that wrote it, and restart the worker"
                ) from None
            written.append(cell)
        for cell in self._dirty:
            cell.dirty = False
        for cell in written:
            cell.writing = cell.stored = True
        self._dirty = []
        return Prepared(values, written)

    def take_back(self, prepared: Prepared) -> None:
        """What a checkpoint had prepared and could not finish belongs to the next one."""
        for cell in prepared.cells:
            cell.writing = False
            if not cell.dirty:
                cell.dirty = True
                self._dirty.append(cell)

    def written(self, prepared: Prepared) -> None:
        """What a checkpoint had prepared is on disk."""
        self._trim_at = self._bound
        for cell in prepared.cells:
            cell.writing = False

    def write_again(self, key: str) -> None:
        """Have the next checkpoint write a key, though nothing has changed it here: somebody else has."""
        cell = self.cell(key)
        cell.stored = True
        if not cell.dirty:
            cell.dirty = True
            self._dirty.append(cell)

    def load(self, key: str, data: bytes | None) -> None:
        """Take a stored value into memory; None: deleted."""
        cell = self.cells[key] = Cell(key)
        if data is not None:
            self._fill(cell, data)

    # Memory

    def _open(self, disk: Disk) -> None:
        """Set the timers of what is on disk; values come when they are asked for."""
        for key, data in disk.values(self.table.name):
            self._sparse = True
            if self.table.due is None:
                return
            try:
                due = stored.head(data).due
            except Foreign:
                due = 0  # found out when it is looked at
            if due < NEVER:
                self._timers.add(due, key)

    def _fill(self, cell: Cell, data: bytes) -> None:
        """Give a fresh cell its stored value. Raises Newer; bytes that are foreign are set aside."""
        try:
            due = stored.head(data).due
            value, marks, life = self.table.decode(data)
        except Foreign as error:
            metrics.QUARANTINED.labels(self.table.name).inc()
            log.error("%s; key %r begins anew, the bytes are kept in the state folder", error, cell.key)
            if self._disk is not None:
                with contextlib.suppress(Unavailable):  # a full disk is no reason to stand still here, too
                    self._disk.quarantine(self.table.name, cell.key, data)
            cell.stored = True
            return
        cell.value = value
        cell.stored = True
        if life == self.life and marks:
            (cell.partition, cell.offset, cell.item), *others = marks
            cell.others = tuple(others)
        if self._disk is None:
            self.arm(cell)
        else:
            cell.armed = due  # `_open`, or `_trim`, has set its timer there
            self.arm(cell)  # by another rule than it was stored by, it may be due earlier

    def _trim(self) -> None:
        """Let keys go that no batch has used lately and that are on disk as they are here."""
        allowed = self._bound * 9 // 10
        for key in list(self.cells):
            if len(self.cells) <= allowed:
                return
            cell = self.cells[key]
            if cell.used or cell.dirty or cell.writing:
                cell.used = False
                continue
            if cell.value is not None and self.table.due is not None:
                at = self.table.due(cell.value)
                if (NEVER if at is None else at) != cell.armed and at is not None:
                    self._remind(at, key)  # where `_fill` will take it to be
            self._sparse = True
            del self.cells[key]


def _marks(saved: _Before) -> tuple[Mark, ...]:
    if saved.partition == NOWHERE:
        return saved.others
    return ((saved.partition, saved.offset, saved.item), *saved.others)


class Table(Generic[V]):
    """A table, declared once in `tables/`; `of(batch)` is the partition that a handler works on.

    `type` is a msgspec struct; `due` says from a value at which clock (ms) it wants attention.
    With `copy` (a value to one that shares nothing with it that changes) values are live: a
    handler changes them in place after `touch`. Without, a value is replaced, never changed.
    `older` reads the bytes of a value as an earlier version stored it, where `type` cannot.
    """

    def __init__(
        self,
        name: str,
        type: type[V],
        *,
        due: Callable[[V], int | None] | None = None,
        copy: Callable[[V], V] | None = None,
        older: Callable[[bytes], V] | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.due = due
        self.copy = copy
        self.older = older
        self.partitions: dict[int, TablePartition[V]] = {}
        self._decoder = msgspec.msgpack.Decoder(tuple[tuple[Mark, ...], type])  # type: ignore[valid-type]
        self._encode = msgspec.msgpack.Encoder().encode

    def of(self, batch: Batch) -> TablePartition[V]:
        """The partition of the batch. Raises TpstreamError where it is not assigned here."""
        return self.at(batch.partition)

    def at(self, partition: int) -> TablePartition[V]:
        """The partition of that number. Raises TpstreamError where it is not assigned here."""
        try:
            return self.partitions[partition]
        except KeyError:
            raise TpstreamError(f"table {self.name}: partition {partition} is not assigned to this worker") from None

    def encode(self, value: V, marks: tuple[Mark, ...], life: bytes, stamp: int) -> bytes:
        """The stored form of a value."""
        at = None if self.due is None else self.due(value)
        return stored.pack(stamp, NEVER if at is None else at, life, self._encode((marks, value)))

    def decode(self, data: bytes) -> tuple[V, tuple[Mark, ...], Life]:
        """A stored value, its marks and their life. Raises Newer, or Foreign if it cannot be read."""
        life, body = stored.body(data)
        try:
            marks, value = self._decoder.decode(body)
        except msgspec.DecodeError as error:
            if self.older is None:
                raise Foreign(f"table {self.name}: a stored value cannot be read: {error}") from None
            marks, value = self._older(body)
        return value, marks, life

    def _older(self, body: bytes) -> tuple[tuple[Mark, ...], V]:
        assert self.older is not None
        try:
            marks, raw = msgspec.msgpack.decode(body, type=tuple[tuple[Mark, ...], msgspec.Raw])
            return marks, self.older(bytes(raw))
        except msgspec.DecodeError as error:
            raise Foreign(f"table {self.name}: a stored value cannot be read: {error}") from None

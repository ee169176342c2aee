"""One partition of a checkpointed table: its values in memory, with undo, marks and timers.

A handler reads and writes like a dict. What a failed batch wrote is put back as it was before
it. Every value carries the positions that it has folded, so replayed input changes nothing.
In memory are the keys in use, up to a bound; the others are in RocksDB and come when asked for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tpstream.bus import stored
from tpstream.bus.cell import NOWHERE, Before, Cell, Prepared, marks_of
from tpstream.bus.position import Life, Position
from tpstream.bus.stored import ASKED, NEVER, Foreign
from tpstream.bus.timers import Timers
from tpstream.errors import TpstreamError, Unavailable
from tpstream.observability import metrics

if TYPE_CHECKING:
    from tpstream.bus.table import Table

log = logging.getLogger(__name__)

V = TypeVar("V")

_made = tuple.__new__


class Disk(Protocol):
    """Where values are that are not in memory: `tpstream.bus.state.PartitionState`."""

    def get(self, table: str, key: str) -> bytes | None: ...
    def values(self, table: str) -> Iterator[tuple[str, bytes]]: ...
    def quarantine(self, table: str, key: str, data: bytes) -> None: ...


class Unstorable(TpstreamError):
    """A value that an agent wrote cannot be made bytes of."""


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
        self.bound = bound
        """Keys to be in memory."""
        self._trim_at = bound
        """Keys in memory above which it is worth while to look for some that can go."""
        self._sparse = False
        """Whether the disk may know keys that are not in memory."""
        self._undo: list[Before] = []
        self._dirty: list[Cell] = []
        self._writing = 0
        """Keys that the checkpoint in hand writes and that have not changed since."""
        self._timers = Timers(self.cell, table.due)
        self._copy = table.copy
        if disk is not None:
            self._open(disk)

    # Like a dict

    def get(self, key: str) -> V | None:
        """The value of a key, or None."""
        cell = self.cells.get(key)
        if cell is None:
            if not self._sparse:
                self._check(key)
                return None  # nor is it on disk; there is nothing to keep in memory
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
            self._timers.arm(cell, at)

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
        self._check(key)
        cell = Cell(key)
        if self._sparse and self._disk is not None and (data := self._disk.get(self.table.name, key)) is not None:
            self._fill(cell, data)
        self.cells[key] = cell
        return cell

    def _check(self, key: str) -> None:
        """Raises TpstreamError for what can be no key."""
        if type(key) is not str:
            raise TpstreamError(f"table {self.table.name}: a key is {type(key).__name__} {key!r:.40}, not str")
        try:
            key.encode()
        except UnicodeEncodeError:
            raise TpstreamError(
                f"table {self.table.name}: the key {key!r:.60} is no text: it has half a pair"
            ) from None
        if key.startswith("\0"):  # tpstream's own, in the changelog and on disk
            raise TpstreamError(f"table {self.table.name}: the key {key!r:.60} begins with a zero character")

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
        copy = value if self._copy is None or value is None else self._copy(value)
        # tuple.__new__ is half the price of the named tuple's own, and this is once per key and batch.
        self._undo.append(_made(Before, (cell, copy, cell.partition, cell.offset, cell.item, cell.others)))

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
                self._timers.arm(cell, at)

    # Timers: a value says when it is due; `Timers` is only an index over the values.

    def next_due(self) -> int | None:
        """The partition's clock (ms) at which the next value is due, or None."""
        return self._timers.next()

    def quiet_until(self) -> int:
        """A clock before which no value is due, at most a second too early, or NEVER.

        Cheap however many values are due in that second, where `next_due` looks at each of them.
        """
        return self._timers.quiet_until()

    def due(self, clock: int) -> list[str]:
        """The keys due at or before the clock, earliest first; each once, until written again."""
        keys: list[str] = []
        while (cell := self._timers.pop(clock)) is not None:
            self.touch(cell)
            cell.armed = NEVER
            keys.append(cell.key)
        return keys

    # What the lane and the checkpoint call.

    @property
    def waiting(self) -> int:
        """How many keys the next checkpoint will write."""
        return len(self._dirty)

    @property
    def held(self) -> int:
        """How many keys are not on disk as they are here: those, and those that the checkpoint in hand writes."""
        return len(self._dirty) + self._writing

    def accept(self) -> None:
        """The batch is done: its writes belong to the next checkpoint."""
        dirty = self._dirty
        for before in self._undo:
            cell = before[0]
            if not cell.dirty:
                cell.dirty = True
                dirty.append(cell)
                self._writing -= cell.writing
        self._undo.clear()
        self.serial += 1

    def trim(self) -> None:
        """After a batch: if there are too many keys in memory, let some go."""
        if len(self.cells) > self._trim_at and self._disk is not None:
            # If none could go now, none will before the next checkpoint: no look for every batch until then.
            patience = 0 if self._trim() else self.bound // 10
            self._trim_at = max(self.bound, len(self.cells) + patience)

    def undo(self) -> None:
        """The batch failed: put back every value as it was before it."""
        self.serial += 1
        for before in self._undo:
            cell = before.cell
            cell.value = self._before(before)
            cell.partition, cell.offset, cell.item, cell.others = before[2:]
            self.arm(cell)
        self._undo.clear()

    def prepare(self, stamp: int = 0) -> Prepared:
        """The values written since the last call, encoded; the caller makes them durable.

        Raises Unstorable where one cannot be encoded; then nothing is taken.
        """
        # A key that a batch in hand has written goes as it was before that batch.
        before = {id(saved.cell): saved for saved in self._undo}
        written: list[Cell] = []
        values: list[bytes | None] = []
        for cell in self._dirty:
            saved = before.get(id(cell)) if before else None
            value, marks = (cell.value, marks_of(cell)) if saved is None else (self._before(saved), marks_of(saved))
            if value is None and not cell.stored:
                continue  # came and went between two checkpoints
            try:
                values.append(None if value is None else self.table.encode(value, marks, self.life, stamp))
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
        self._writing = len(written)
        return Prepared(written, values)

    def take_back(self, prepared: Prepared) -> None:
        """What a checkpoint had prepared and could not finish belongs to the next one."""
        self._writing = 0
        for cell in prepared.cells:
            cell.writing = False
            if not cell.dirty:
                cell.dirty = True
                self._dirty.append(cell)

    def written(self, prepared: Prepared) -> None:
        """What a checkpoint had prepared is on disk."""
        self._trim_at = self.bound
        self._writing = 0
        for cell in prepared.cells:
            cell.writing = False

    def write_again(self, key: str) -> None:
        """Have the next checkpoint write a key, though nothing has changed it here: somebody else has."""
        cell = self.cell(key)
        cell.stored = True
        if not cell.dirty:
            cell.dirty = True
            self._dirty.append(cell)
            self._writing -= cell.writing

    def load(self, key: str, data: bytes | None) -> None:
        """Take a stored value into memory; None: deleted."""
        cell = self.cells[key] = Cell(key)
        if data is not None:
            self._fill(cell, data)

    def _before(self, before: Before) -> V | None:
        """The value of a cell before the batch in hand; it is given to one only, where values are live."""
        restore = self.table.restore
        return before.copy if restore is None or before.copy is None else restore(before.copy)  # type: ignore[no-any-return]

    # Memory

    def _open(self, disk: Disk) -> None:
        """Set the timers of what is on disk; values come when they are asked for."""
        for key, data in disk.values(self.table.name):
            self._sparse = True
            if self.table.due is None:
                return
            try:
                due = stored.head(data).due
                if due == NEVER:  # stored by a version whose table had no `due`
                    at = self.table.due(self.table.decode(data)[0])
                    due = NEVER if at is None else at
            except Foreign:
                due = 0  # found out when it is looked at
            if due < ASKED:
                self._timers.remind(due, key)

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
        if self._disk is not None and self.table.due is not None and self.table.due(value) == due:
            cell.armed = due  # `_open`, or `_trim`, has set its timer there
        self.arm(cell)  # else it is in memory alone, or due by another rule than it was stored by

    def _trim(self) -> int:
        """Let keys go that no batch has used lately and that are on disk as they are here; how many.

        Each has a second chance: who was used comes last in line. No more are looked at than twice those to go.
        """
        cells, gone = self.cells, 0
        excess = len(cells) - self.bound * 9 // 10
        for key in list(islice(cells, 2 * excess)):
            if gone == excess:
                break
            cell = cells.pop(key)
            if cell.used or cell.dirty or cell.writing:
                cell.used = False
                cells[key] = cell
                continue
            if cell.value is not None and self.table.due is not None:
                at = self.table.due(cell.value)
                if (NEVER if at is None else at) != cell.armed and at is not None:
                    self._timers.remind(at, key)  # where `_fill` will take it to be
            self._sparse = True
            gone += 1
        return gone

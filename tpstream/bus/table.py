"""Checkpointed tables: state of a partition in memory, written at each checkpoint.

A handler reads and writes like a dict. Values are never changed in place: a write replaces
the value, so a failed batch is undone by putting the old references back. Every value
carries the positions that it has folded, so replayed input changes nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from tpstream.bus.batch import Batch
from tpstream.bus.position import Life, Position
from tpstream.errors import TpstreamError

V = TypeVar("V")

FORMAT = 1
"""Format version at the head of every stored value; older are read, newer refused."""

Mark = tuple[int, int, int]
"""Raw partition, offset, index: the newest position folded of that raw partition."""


class Entry(NamedTuple):
    """A value and the marks of what it has folded, valid in one life."""

    value: Any
    marks: tuple[Mark, ...]
    life: bytes


class Newer(TpstreamError):
    """A stored value is of a later tpstream: reading past it would overwrite what it says."""


class Prepared(NamedTuple):
    """What a checkpoint writes of one table partition: encoded values by key, None: deleted."""

    values: dict[str, bytes | None]


class TablePartition(Generic[V]):
    """One partition of a table. One batch of one agent works on it at a time."""

    def __init__(self, table: Table[V], partition: int, life: Life) -> None:
        self.table = table
        self.partition = partition
        self.life = life
        self._entries: dict[str, Entry] = {}
        self._dirty: set[str] = set()
        self._undo: dict[str, Entry | None] = {}
        self._timers: list[tuple[int, str]] = []
        self._armed: dict[str, int] = {}

    def get(self, key: str) -> V | None:
        """The value of a key, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry.value

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[str, V]]:
        """All keys and values; do not write while iterating."""
        return ((key, entry.value) for key, entry in self._entries.items())

    def seen(self, key: str, position: Position) -> bool:
        """Whether the value has already folded what stands at this position."""
        entry = self._entries.get(key)
        if entry is None or entry.life != position.life:
            return False
        for partition, offset, index in entry.marks:
            if partition == position.partition:
                return (position.offset, position.item) <= (offset, index)
        return False

    def put(self, key: str, value: V, position: Position | None = None) -> None:
        """Replace the value; `position` is what this write has folded, None: nothing new."""
        old = self._entries.get(key)
        if key not in self._undo:
            self._undo[key] = old
        marks = old.marks if old is not None and old.life == self.life else ()
        if position is not None:
            mark = (position.partition, position.offset, position.item)
            if len(marks) <= 1 and (not marks or marks[0][0] == mark[0]):
                marks = (mark,)
            else:
                marks = (*(m for m in marks if m[0] != mark[0]), mark)
        self._entries[key] = Entry(value, marks, self.life)
        self._arm(key, value)

    def delete(self, key: str) -> None:
        """Remove a key; its tombstone is written at the next checkpoint."""
        old = self._entries.pop(key, None)
        if key not in self._undo:
            self._undo[key] = old

    # Timers: a value says when it is due; the heap is only an index over the values.

    def next_due(self) -> int | None:
        """The partition's clock (ms) at which the next value is due, or None."""
        self._settle()
        return self._timers[0][0] if self._timers else None

    def due(self, clock: int) -> list[str]:
        """The keys due at or before the clock, earliest first; each once, until written again."""
        keys: list[str] = []
        self._settle()
        while self._timers and self._timers[0][0] <= clock:
            key = heapq.heappop(self._timers)[1]
            del self._armed[key]
            keys.append(key)
            self._undo.setdefault(key, self._entries.get(key))
            self._settle()
        return keys

    def _settle(self) -> None:
        """Bring the head of the heap up to date: a value is written far more often than it is due.

        A write that moves a value's time on leaves its timer where it is; only when that comes
        to the head is it moved, so there are about as many timers as keys.
        """
        while self._timers:
            at, key = self._timers[0]
            entry = self._entries.get(key)
            actual = None if entry is None or self.table.due is None else self.table.due(entry.value)
            if self._armed.get(key) == at and actual == at:
                return
            heapq.heappop(self._timers)
            if self._armed.get(key) != at:
                continue  # an earlier one was armed since, or it is done
            del self._armed[key]
            if actual is not None:
                self._push(actual, key)

    def _arm(self, key: str, value: V) -> None:
        if self.table.due is not None and (at := self.table.due(value)) is not None:
            armed = self._armed.get(key)
            if armed is None or at < armed:
                self._push(at, key)

    def _push(self, at: int, key: str) -> None:
        heapq.heappush(self._timers, (at, key))
        self._armed[key] = at

    # What the lane and the checkpoint call.

    def accept(self) -> None:
        """The batch is done: its writes belong to the next checkpoint."""
        self._dirty.update(self._undo)
        self._undo.clear()

    def undo(self) -> None:
        """The batch failed: put back every value as it was before it."""
        for key, old in self._undo.items():
            if old is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = old
                self._arm(key, old.value)
        self._undo.clear()

    def prepare(self) -> Prepared:
        """The values written since the last call, encoded; the caller makes them durable."""
        # A key that a batch in hand has written goes as it was before that batch.
        entries, undo = self._entries, self._undo
        values = {key: self._encode(undo[key] if key in undo else entries.get(key)) for key in self._dirty}
        self._dirty.clear()
        return Prepared(values)

    def take_back(self, prepared: Prepared) -> None:
        """What a checkpoint had prepared and could not finish belongs to the next one."""
        self._dirty.update(prepared.values)

    def touch_all(self) -> None:
        """Have the next checkpoint write every value (a new life's changelog starts empty)."""
        self._dirty.update(self._entries)

    def load(self, key: str, data: bytes | None) -> None:
        """Take a stored value in while recovering; None: deleted."""
        if data is None:
            self._entries.pop(key, None)
            return
        entry = self.table.decode(data)
        self._entries[key] = entry
        self._arm(key, entry.value)

    def _encode(self, entry: Entry | None) -> bytes | None:
        return None if entry is None else self.table.encode(entry)


class Table(Generic[V]):
    """A table, declared once in `tables/`; `of(batch)` is the partition that a handler works on.

    `type` is a msgspec struct; `due` says from a value at which clock (ms) it wants attention.
    """

    def __init__(self, name: str, type: type[V], *, due: Callable[[V], int | None] | None = None) -> None:
        self.name = name
        self.type = type
        self.due = due
        self.partitions: dict[int, TablePartition[V]] = {}
        self._decoder = msgspec.msgpack.Decoder(tuple[int, bytes, tuple[Mark, ...], type])  # type: ignore[valid-type]

    def of(self, batch: Batch) -> TablePartition[V]:
        """The partition of the batch. Raises TpstreamError where it is not assigned here."""
        return self.at(batch.partition)

    def at(self, partition: int) -> TablePartition[V]:
        """The partition of that number. Raises TpstreamError where it is not assigned here."""
        try:
            return self.partitions[partition]
        except KeyError:
            raise TpstreamError(f"table {self.name}: partition {partition} is not assigned to this worker") from None

    def encode(self, entry: Entry) -> bytes:
        """The stored form of a value: format version, life, marks, value (msgpack)."""
        return msgspec.msgpack.encode((FORMAT, entry.life, entry.marks, entry.value))

    def decode(self, data: bytes) -> Entry:
        """Read a stored value; TpstreamError if it is of a newer format or foreign."""
        try:
            version, life, marks, value = self._decoder.decode(data)
        except msgspec.DecodeError as error:
            if (version := _version_of(data)) <= FORMAT:
                raise TpstreamError(f"table {self.name}: a stored value cannot be read: {error}") from None
        if version > FORMAT:
            raise Newer(f"table {self.name}: stored format {version} is newer than this tpstream ({FORMAT})")
        return Entry(value, marks, life)


def _version_of(data: bytes) -> int:
    """The format version at the head of a value of whatever shape; 0: it has none."""
    try:
        content = msgspec.msgpack.decode(data)
    except msgspec.DecodeError:
        return 0
    version = content[0] if isinstance(content, list) and content else 0
    return version if isinstance(version, int) else 0

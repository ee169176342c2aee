"""Checkpointed tables: what is declared once in `tables/`, and how its values are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from tpstream.bus import stored
from tpstream.bus.batch import Batch
from tpstream.bus.cell import Mark
from tpstream.bus.position import Life
from tpstream.bus.stored import ASKED, NEVER, Foreign
from tpstream.bus.table_partition import TablePartition
from tpstream.errors import TpstreamError

V = TypeVar("V")


class Table(Generic[V]):
    """A table, declared once in `tables/`; `of(batch)` is the partition that a handler works on.

    `type` is a msgspec struct; `due` says from a value at which clock (ms) it wants attention.
    With `copy` (a value to one that shares nothing with it that changes) values are live: a
    handler changes them in place after `touch`. Without, a value is replaced, never changed.
    With `restore`, a copy may be anything cheaper that `restore` makes a value of again.
    `older` reads the bytes of a value as an earlier version stored it, where `type` cannot.
    """

    def __init__(
        self,
        name: str,
        type: type[V],
        *,
        due: Callable[[V], int | None] | None = None,
        copy: Callable[[V], Any] | None = None,
        restore: Callable[[Any], V] | None = None,
        older: Callable[[bytes], V] | None = None,
    ) -> None:
        self.name = name
        self.type = type
        self.due = due
        self.copy = copy
        self.restore = restore
        self.older = older
        self.partitions: dict[int, TablePartition[V]] = {}
        self._decoder = msgspec.msgpack.Decoder(tuple[tuple[Mark, ...], type])  # type: ignore[valid-type]
        self._encode = msgspec.msgpack.Encoder().encode

    def of(self, batch: Batch) -> TablePartition[V]:
        """The partition of the batch. Raises TpstreamError where its agent does not declare the table."""
        if self not in batch.tables:
            raise TpstreamError(
                f"table {self.name}: agent {batch.agent} does not declare it; add `tables=({self.name},)` to its "
                f"`@app.batch_agent(…)`, and in a test to `make_batch(…)`"
            )
        return self.at(batch.partition)

    def at(self, partition: int) -> TablePartition[V]:
        """The partition of that number. Raises TpstreamError where it is not assigned here."""
        try:
            return self.partitions[partition]
        except KeyError:
            raise TpstreamError(f"table {self.name}: partition {partition} is not assigned to this worker") from None

    def encode(self, value: V, marks: tuple[Mark, ...], life: bytes, stamp: int) -> bytes:
        """The stored form of a value."""
        if self.due is None:
            due = NEVER
        else:
            at = self.due(value)
            due = ASKED if at is None else at
        return stored.pack(stamp, due, life, self._encode((marks, value)))

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

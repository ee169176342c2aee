"""A stream: a batch as a plain agent sees it, one record after another.

A plain agent is written as for Faust (`async for value in stream`). It is driven from the lane,
batch by batch: its loop ends where the batch does, and its return is what acknowledges it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tpstream.bus.batch import Batch, Record
from tpstream.bus.envelope import Headers
from tpstream.bus.position import Position
from tpstream.errors import TpstreamError

if TYPE_CHECKING:
    from tpstream.bus.table import Table
    from tpstream.bus.table_partition import TablePartition
    from tpstream.bus.topics import Topic

V = TypeVar("V")
T = TypeVar("T")


def _key(batch: Batch, record: Record) -> str:
    try:
        return (record.key or b"").decode()
    except UnicodeDecodeError:
        raise TpstreamError(f"{batch.where(record)}: the key {record.key!r} is no UTF-8") from None


class Event(Generic[V]):
    """A value with the record that it came in."""

    __slots__ = ("_batch", "record", "value")

    def __init__(self, batch: Batch, record: Record, value: V) -> None:
        self._batch = batch
        self.record = record
        self.value = value

    @property
    def key(self) -> str:
        """The record's key; empty where it has none. TpstreamError if it is no text."""
        return _key(self._batch, self.record)

    @property
    def timestamp(self) -> int:
        """The record's time, ms."""
        return self.record.timestamp

    @property
    def headers(self) -> Headers:
        """Pairs of name and bytes."""
        return self.record.headers

    @property
    def topic(self) -> str:
        """The topic's name."""
        return self._batch.topic.name

    @property
    def partition(self) -> int:
        """The partition's number."""
        return self._batch.partition

    @property
    def offset(self) -> int:
        """The record's offset."""
        return self.record.offset


class Stream(Generic[V]):
    """The records of one batch, in order; what is done while it is read takes effect when the agent has returned."""

    def __init__(self, batch: Batch, tables: tuple[Table[Any], ...] = ()) -> None:
        self.batch = batch
        self.record: Record | None = None
        """The record whose value was handed over last."""
        self.failure: TpstreamError | None = None
        """Why a value could not be read, whatever the agent made of that."""
        self._tables = tables
        self._pairs: Iterator[tuple[Record, Any]] = batch.values()
        self._sent_of: Record | None = None
        self._sent = 0

    @property
    def services(self) -> Any:
        """What the worker gives to its handlers (`tpstream.app.Services`)."""
        return self.batch.services

    async def __aiter__(self) -> AsyncIterator[V]:
        """Each value."""
        for _, value in self._read():
            yield value

    async def events(self) -> AsyncIterator[Event[V]]:
        """Each value with its key, time, headers and place."""
        for record, value in self._read():
            yield Event(self.batch, record, value)

    async def items(self) -> AsyncIterator[tuple[str, V]]:
        """Each key and value."""
        for record, value in self._read():
            yield _key(self.batch, record), value

    def send(
        self,
        topic: Topic[Any],
        value: Any,
        *,
        key: str | None = None,
        timestamp: int | None = None,
        headers: Headers = (),
    ) -> None:
        """Produce a record. `key` and `timestamp` (ms): of the record in hand, unless given."""
        record = self._in_hand(f"send to {topic.name}")
        if record is not self._sent_of:
            self._sent_of, self._sent = record, 0
        position, origin = self.batch.beside(record, self._sent)
        self._sent += 1
        self.batch.send(
            topic,
            value,
            key=_key(self.batch, record) if key is None else key,
            position=position,
            origin=origin,
            timestamp=record.timestamp if timestamp is None else timestamp,
            headers=headers,
        )

    def table(self, table: Table[T]) -> StreamTable[T]:
        """A table, declared with the agent, as a dict in which a repeated record changes nothing."""
        if table not in self._tables:
            raise TpstreamError(
                f"agent {self.batch.agent}: table {table.name} is not its own; declare @app.agent(…, tables=(…,))"
            )
        return StreamTable(self, table.at(self.batch.partition))

    def more(self) -> bool:
        """Whether a value is left that has not been handed over."""
        for pair in self._pairs:
            self._pairs = chain((pair,), self._pairs)
            return True
        return False

    def _read(self) -> Iterator[tuple[Record, Any]]:
        try:
            for record, value in self._pairs:
                self.record = record
                yield record, value
        except TpstreamError as error:  # by the batch: what an agent raises is not thrown in here
            self.failure = error
            raise

    def _in_hand(self, purpose: str) -> Record:
        if self.record is None:
            raise TpstreamError(f"agent {self.batch.agent}: {purpose} before a record was taken from the stream")
        return self.record


class StreamTable(Generic[T]):
    """A table's partition as a dict. A write made for a record that its key has already folded is passed over.

    So what a crash repeats is counted once. What else is done for the record is done again, with the
    same identity.
    """

    def __init__(self, stream: Stream[Any], part: TablePartition[T]) -> None:
        self._stream = stream
        self._part = part
        self._of: Record | None = None
        self._position: Position
        self._own: set[str] = set()
        """Keys that the record in hand has written: it may go on."""

    def get(self, key: str) -> T | None:
        """The value of a key, or None. It is replaced, never changed in place."""
        return self._part.get(key)

    def __getitem__(self, key: str) -> T:
        return self._part[key]

    def __contains__(self, key: str) -> bool:
        return key in self._part

    def __setitem__(self, key: str, value: T) -> None:
        if self._fresh(key):
            self._part.put(key, value, self._position)

    def __delitem__(self, key: str) -> None:
        if self._fresh(key):
            del self._part[key]

    def _fresh(self, key: str) -> bool:
        record = self._stream._in_hand(f"a write to table {self._part.table.name}")
        if record is not self._of:
            self._of, self._position = record, self._stream.batch.position(record)
            self._own.clear()
        if key not in self._own:
            if self._part.seen(key, self._position):
                return False
            self._own.add(key)
        return True


def driven(
    handler: Callable[[Stream[Any]], Awaitable[object]], tables: tuple[Table[Any], ...]
) -> Callable[[Batch], Awaitable[None]]:
    """A plain agent's handler as one of batches.

    An agent that leaves its loop early is called again with what is left: a record that it has
    not been handed is never acknowledged.
    """

    async def drive(batch: Batch) -> None:
        stream: Stream[Any] = Stream(batch, tables)
        while stream.more():
            before = stream.record
            returned = await handler(stream)
            if stream.failure is not None:
                raise stream.failure
            if returned is not None:
                raise TpstreamError(f"agent {batch.agent} returned {type(returned).__name__}, not None")
            if stream.record is before:
                raise TpstreamError(
                    f"agent {batch.agent} returned without taking a record: write `async for value in stream:`"
                )

    return drive

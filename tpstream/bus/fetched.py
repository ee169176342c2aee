"""Fetched records as aiokafka's parser made them, without its `ConsumerRecord` around each.

That is a dataclass of eleven fields, made in Python for every record: 0.85 of the 1.3 µs that a
record costs from the fetched bytes to the handler (measured). A handler needs offset, timestamp,
key, value and headers, which the parser's own record has.

aiokafka has no place to hang this in, so it uses four private names of it (`_fetcher`, `_records`,
`_partition_records`, `_unpack_records`); aiokafka is pinned, and a test holds it to them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException


class _Lean(PartitionRecords):  # type: ignore[misc]
    """The records of one answer to a fetch, of one partition. Transactions are not looked at."""

    @classmethod
    def of(cls, records: PartitionRecords) -> _Lean:
        records._records_iterator = None  # it and what made it hold each other, and megabytes of bytes
        return cls(
            records._tp,
            records._records,
            records._aborted_transactions,
            records.next_fetch_offset,
            records._key_deserializer,
            records._value_deserializer,
            records._check_crcs,
            records._isolation_level,
        )

    def __iter__(self) -> Iterator[Any]:
        return self._records_iterator  # type: ignore[no-any-return]  # itself would be a call more for each record

    # Where it stands is kept in a list that the iterator has, too, so that the two do not hold each other: what is
    # dropped half read, as partitions come and go, would stay until garbage is looked for.

    @property
    def next_fetch_offset(self) -> int:
        return self._next[0]

    @next_fetch_offset.setter
    def next_fetch_offset(self, offset: int) -> None:
        self._next = [offset]

    def _unpack_records(self) -> Iterator[Any]:
        return _unpacked(self._records, self._next, self._check_crcs, self._tp)


def _unpacked(records: Any, next_offset: list[int], check_crcs: bool, place: TopicPartition) -> Iterator[Any]:
    """The records from `next_offset[0]` on, which is kept behind the last one that was given."""
    while records.has_next():
        batch = records.next_batch()
        if check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {place}")
        if not batch.is_control_batch:
            for record in batch:
                offset = record.offset
                if offset >= next_offset[0]:  # a batch is answered whole, whatever was asked for
                    next_offset[0] = offset + 1
                    yield record
        next_offset[0] = batch.next_offset


class _Results(dict[TopicPartition, Any]):
    """aiokafka's results of fetches that wait to be taken; those of the given topics are lean."""

    def __init__(self, topics: Collection[str]) -> None:
        super().__init__()
        self._topics = topics

    def __setitem__(self, place: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult and place.topic in self._topics:
            result._partition_records = _Lean.of(result._partition_records)
        super().__setitem__(place, result)


def lean(consumer: AIOKafkaConsumer, topics: Collection[str]) -> None:
    """Have `getmany` return lean records of these topics. Call after `start`, before anything is assigned."""
    consumer._fetcher._records = _Results(topics)

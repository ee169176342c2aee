"""Read topics from a place to their present end, without a group.

The end is the high watermark of the fetch response: the embedded broker answers ListOffsets
wrongly when its last batch holds more than one record (measured).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tpstream.bus.fetched import lean
from tpstream.errors import Unavailable


async def read_to_end(
    bootstrap: str, starts: Mapping[TopicPartition, int], *, patience: float = 30.0, bare: bool = False
) -> AsyncIterator[tuple[TopicPartition, list[Any]]]:
    """Lists of records of each partition from its offset on, until the end as of the call.

    `bare`: records that do not say of which topic they are, for half the price (measured; `tpstream.bus.fetched`).
    An offset that is no longer there (or not yet: a new life) counts as the earliest.
    Raises Unavailable if Kafka does not answer for `patience` seconds.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=8_000_000,
    )
    try:
        await consumer.start()
        if bare:
            lean(consumer, {place.topic for place in starts})
        consumer.assign(list(starts))
        for partition, offset in starts.items():
            consumer.seek(partition, offset)
        left = set(starts)
        while left:
            async with asyncio.timeout(patience):
                records = await _fetch(consumer, list(left))
                while not records and all(consumer.highwater(partition) is None for partition in left):
                    records = await _fetch(consumer, list(left))
            for partition, some in records.items():
                yield partition, some
            for partition in list(left):
                end = consumer.highwater(partition)
                if end is not None and await consumer.position(partition) >= end:
                    left.discard(partition)
    except (KafkaError, TimeoutError) as error:
        raise Unavailable(f"Kafka at {bootstrap} does not answer ({error or 'time-out'}); is it running?") from None
    finally:
        await consumer.stop()


async def _fetch(consumer: AIOKafkaConsumer, partitions: list[TopicPartition]) -> Mapping[TopicPartition, list[Any]]:
    try:
        return await consumer.getmany(*partitions, timeout_ms=100, max_records=50_000)  # type: ignore[no-any-return]
    except OffsetOutOfRangeError:
        return {}

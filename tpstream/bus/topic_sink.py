"""Produced records as a sink, beside the store's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tpstream.bus.batch import Outgoing
from tpstream.errors import Full


class TopicSink:
    """Records to be produced, as a sink: bounded, and durable when Kafka has acknowledged them."""

    name = "topics"

    def __init__(self, producer: Any, limit_bytes: int = 64_000_000) -> None:
        self.producer = producer
        self.limit_bytes = limit_bytes

    def add(self, rows: Sequence[Outgoing], positions: Sequence[Any]) -> None:
        """Hand the records to the producer. Full when too much is not yet acknowledged."""
        if self.producer.buffered_bytes > self.limit_bytes:
            raise Full(f"{self.producer.buffered_bytes} bytes wait for Kafka")
        self.producer.add_all(rows)

    @property
    def pending(self) -> int:
        """Records that Kafka has not acknowledged."""
        return int(self.producer.unacknowledged)

    async def flush(self) -> None:
        """Return when Kafka has acknowledged what was added."""
        await self.producer.flush()

    async def close(self) -> None:
        """The producer belongs to the worker, which closes it."""

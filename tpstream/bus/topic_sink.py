"""Produced records as a sink, beside the store's."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tpstream.bus.batch import Outgoing
from tpstream.bus.refused import Sender, letter_of, limit_of
from tpstream.errors import Full

log = logging.getLogger(__name__)

OnSettled = Callable[[str, int, int, str], None]
"""Told of an agent how many of its records topics have taken or refused, how many refused, and why the last of them."""

LETTER_TRIES = 2
"""Of a dead letter: whole, and cut where the dead-letter topic refuses it."""


class TopicSink:
    """Records to be produced, as a sink: bounded, and durable when Kafka has acknowledged them.

    What a topic will never take becomes a dead letter, which is as durable as the others then.
    """

    name = "topics"

    def __init__(self, producer: Any, limit_bytes: int = 64_000_000) -> None:
        self.producer = producer
        self.limit_bytes = limit_bytes
        self.on_settled: OnSettled = lambda agent, sent, refused, why: None
        self._turn = 0
        """Counts flushes: what was sent before one is settled after it, whatever is sent meanwhile."""
        self._sent: Counter[tuple[int, str]] = Counter()
        self._refused: Counter[tuple[int, str]] = Counter()
        self._why: dict[str, str] = {}

    def add(self, rows: Sequence[Outgoing], positions: Sequence[Any], agent: str = "") -> None:
        """Hand the records of this agent to the producer. Full when too much is not yet acknowledged."""
        if self.producer.buffered_bytes > self.limit_bytes:
            raise Full(f"{self.producer.buffered_bytes} bytes wait for Kafka")
        self.producer.add_all(rows, Sender(agent or self.name, self._turn))
        self._sent[self._turn, agent or self.name] += len(rows)

    @property
    def pending(self) -> int:
        """Records that Kafka has not acknowledged."""
        return int(self.producer.unacknowledged)

    async def flush(self) -> None:
        """Return when Kafka has acknowledged what was added, or the dead letters in place of it."""
        producer, turn = self.producer, self._turn
        self._turn += 1
        await producer.flush()
        limits: dict[tuple[str, type[Exception]], str] = {}
        for _ in range(1 + LETTER_TRIES):
            for refused in list(producer.refused):
                if (kind := (refused.topic, type(refused.error))) not in limits:
                    limits[kind] = await limit_of(producer.bootstrap, refused)
            # From here to the letters' being added without an await: a checkpoint may be given up at any.
            taken = producer.take_refused()
            for refused in taken:
                limit = limits.get((refused.topic, type(refused.error)), "")
                if (letter := letter_of(producer.bootstrap, refused, limit)) is not None:
                    producer.add_all([letter.record], letter.sender)
                    if letter.why:
                        self._refused[letter.sender.turn, letter.sender.agent] += 1
                        self._why[letter.sender.agent] = letter.why
            if taken:
                topics = ", ".join(sorted({refused.topic for refused in taken}))
                log.error("%d records go to the dead letters, as %s will never take them", len(taken), topics)
            await producer.flush()
            if not producer.refused:
                break
        for key in [key for key in self._sent if key[0] <= turn]:
            agent = key[1]
            self.on_settled(agent, self._sent.pop(key), self._refused.pop(key, 0), self._why.get(agent, ""))

    async def close(self) -> None:
        """The producer belongs to the worker, which closes it."""

"""Rows that a sink will never take become dead letters."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from tpstream.bus import topics
from tpstream.bus.batch import Outgoing
from tpstream.bus.sink import Sink
from tpstream.errors import Rejected
from tpstream.messages import DeadLetter


def dead_letters_of(sink: Sink, error: Rejected) -> Iterator[Outgoing]:
    """One record for the dead-letter topic for each refused row."""
    now = int(time.time() * 1000)
    for number, row in enumerate(error.rows):
        letter = DeadLetter(
            id=f"{sink.name}-{now}-{number}",
            ts=now,
            device="",
            stage=sink.name,
            reason="agent",
            payload=msgspec.json.encode(row, enc_hook=str)[:64_000],
            detail=str(error),
        )
        yield Outgoing(topics.dead_letters.name, 0, b"", topics.dead_letters.encode(letter), (), now)

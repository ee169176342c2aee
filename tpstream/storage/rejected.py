"""Rows that a sink will never take become dead letters."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from tpstream.bus import topics
from tpstream.bus.batch import Outgoing
from tpstream.bus.sink import Sink
from tpstream.errors import Rejected
from tpstream.messages import DeadLetter
from tpstream.observability import metrics
from tpstream.storage import tables

log = logging.getLogger(__name__)

MAX_PAYLOAD = 64_000
"""Bytes of a row, as JSON, that its dead letter keeps."""


def dead_letters_of(sink: Sink, error: Rejected) -> Iterator[Outgoing]:
    """One record for the dead-letter topic for each refused row, under its device.

    The same row has the same id, however often it is refused. A refused row of `dead_letters` makes none, as that
    would come back and be refused again, for ever: it ends here, with a line in the log.
    """
    now = int(time.time() * 1000)
    ends = sink.name == tables.DEAD_LETTERS.name
    for row in error.rows:
        metrics.DEAD_LETTERS.labels(sink.name, "agent").inc()
        if ends:
            log.error("a dead letter is lost, the store refuses it: %s", _json(row)[:1000].decode(errors="replace"))
            continue
        letter = _letter(sink.name, row, str(error), now)
        yield Outgoing(
            topics.dead_letters.name, None, letter.device.encode(), topics.dead_letters.encode(letter), (), now
        )


def _letter(stage: str, row: Any, detail: str, now: int) -> DeadLetter:
    known = row if isinstance(row, dict) else {}
    payload = _json({name: value for name, value in known.items() if name != "error"} or row)
    return DeadLetter(
        id=f"{stage}-{hashlib.blake2b(payload, digest_size=12).hexdigest()}",
        ts=now,
        device=str(known.get("device", "")),
        stage=stage,
        reason="agent",
        payload=payload[:MAX_PAYLOAD],
        detail=str(known.get("error", detail)),
        source_life=str(known.get("source_life", "")),
        source_partition=int(known.get("source_partition", -1)),
        source_offset=int(known.get("source_offset", -1)),
        source_index=int(known.get("source_index", 0)),
    )


def _json(row: Any) -> bytes:
    return msgspec.json.encode(row, enc_hook=str)

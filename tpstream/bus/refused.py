"""Records that Kafka will never take become dead letters, so that nothing waits for them for ever.

A topic refuses a batch for what one record in it is: its size, or its time. The producer finds the
one and gives it up where an agent sent it; a changelog's value is never given up.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from contextlib import suppress
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidTimestampError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from tpstream.bus import topics
from tpstream.bus.batch import BESIDE, Outgoing
from tpstream.bus.batch_builder import Item, RecordBatch
from tpstream.bus.envelope import DerivedHeader, header
from tpstream.errors import TpstreamError
from tpstream.messages import DeadLetter
from tpstream.observability import metrics

log = logging.getLogger(__name__)

MAX_LETTER = 12_000_000
"""Bytes of payload and headers that a dead letter holds whole; as JSON they are a third longer."""
KEPT_OF_LARGER = 65_536
"""Bytes of a larger payload that it holds."""

LIMIT_SECONDS = 5.0
"""For Kafka's word on what a topic takes."""

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
FOR_GOOD = (*TOO_LARGE, InvalidTimestampError)
"""Kafka's words that say of a record in a batch that it will not be taken, however often it is sent."""

_SETTING = {
    MessageSizeTooLargeError: "max.message.bytes",
    RecordListTooLargeError: "segment.bytes",
    InvalidTimestampError: "message.timestamp.after.max.ms",
}


class Sender(NamedTuple):
    """Who sent a record, and so that it may be given up: it is the record's token in the producer."""

    agent: str
    turn: int = 0
    """Between which flushes it was sent."""
    last: bool = False
    """Of what is a dead letter's last try: if that is refused, too, it is lost."""


class Refused(NamedTuple):
    """A record that its topic will never take."""

    topic: str
    partition: int
    item: Item
    error: KafkaError


def fitting(
    payload: bytes, headers: tuple[tuple[str, bytes], ...], most: int = MAX_LETTER
) -> tuple[bytes, tuple[tuple[str, bytes], ...], str]:
    """What of these a dead letter holds, and what its detail says of that."""
    if len(payload) + sum(len(value) for _, value in headers) <= most:
        return payload, headers, ""
    said = f" (of its {len(payload)} bytes the first {KEPT_OF_LARGER} are kept, and no headers)"
    return payload[:KEPT_OF_LARGER], (), said


async def limit_of(bootstrap: str, refused: Refused) -> str:
    """What the topic says is its limit, in the words of its configuration; empty: not known."""
    setting = _SETTING[type(refused.error)]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=int(LIMIT_SECONDS * 1000))
    with suppress(KafkaError, TimeoutError, OSError):
        async with asyncio.timeout(LIMIT_SECONDS):
            try:
                await admin.start()
                wanted = ConfigResource(ConfigResourceType.TOPIC, refused.topic, {setting: None})
                for response in await admin.describe_configs([wanted]):
                    for *_, entries in response.resources:
                        for name, value, *_ in entries:
                            if name == setting:
                                return str(value)
            finally:
                await admin.close()
    return ""


class Letter(NamedTuple):
    """A dead letter to be sent."""

    record: Outgoing
    sender: Sender
    why: str
    """Why what it is of was refused; empty: it is of a dead letter."""


def letter_of(bootstrap: str, refused: Refused, limit: str) -> Letter | None:
    """The record for the dead-letter topic that a refused one becomes; the same one, however often it is refused.

    A dead letter that is refused itself is cut and sent once more. None: it was; it ends in the log.
    """
    sender: Sender = refused.item[4]
    now = time.time_ns() // 1_000_000  # the record's own time may be what is refused
    if refused.topic == topics.dead_letters.name:
        again = None if sender.last else _shorter(refused)
        if again is None:
            log.error("a dead letter of %s is lost: %s", sender.agent, _why(bootstrap, refused, limit))
            return None
        letter, last, why = again, True, ""
    else:
        why = _why(bootstrap, refused, limit)
        letter, last = _letter(sender.agent, refused, why), False
        metrics.DEAD_LETTERS.labels(sender.agent, "agent").inc()
    data = topics.dead_letters.encode(letter)
    record = Outgoing(topics.dead_letters.name, None, letter.device.encode(), data, (), now)
    return Letter(record, sender._replace(last=last), why)


def _letter(agent: str, refused: Refused, why: str) -> DeadLetter:
    key, value, headers, timestamp, _, _ = refused.item
    device, data = key.decode(errors="replace"), value or b""
    source, place = "", (-1, -1, 0)
    with suppress(TpstreamError):
        life, partition, offset, index = DerivedHeader.unpack(header(headers, "tp") or b"").origin
        if partition < BESIDE:  # else it is no partition's number
            source, place = life.hex(), (partition, offset, index)
    payload, kept, cut = fitting(data, tuple((name, value or b"") for name, value in headers))
    # What it was made from may have made others: only the whole tells them apart.
    digest = hashlib.blake2b(digest_size=12)
    for part in (key, header(headers, "tp") or b"", data):
        digest.update(len(part).to_bytes(8, "little") + part)
    return DeadLetter(
        id=f"{agent}-{refused.topic}-{digest.hexdigest()}",
        ts=timestamp,
        device=device,
        stage=agent,
        reason="agent",
        topic=refused.topic,
        payload=payload,
        detail=why + cut,
        headers=kept,
        source_life=source,
        source_partition=place[0],
        source_offset=place[1],
        source_index=place[2],
    )


def _shorter(refused: Refused) -> DeadLetter | None:
    """A dead letter that the dead-letter topic did not take, cut; None where nothing more can be cut."""
    letter = topics.dead_letters.decode(refused.item[1] or b"")
    if not isinstance(refused.error, TOO_LARGE):
        return letter
    payload, headers, cut = fitting(letter.payload, letter.headers, KEPT_OF_LARGER)
    if not cut:
        return None
    values = {name: getattr(letter, name) for name in letter.__struct_fields__}
    return DeadLetter(**values | {"payload": payload, "headers": headers, "detail": letter.detail + cut})


def _why(bootstrap: str, refused: Refused, limit: str) -> str:
    """One line for a person: which record, what is wrong with it, the limit, and the remedy."""
    setting = _SETTING[type(refused.error)]
    record = f"topic {refused.topic} does not take a record"
    alter = f"`kafka-configs.sh --bootstrap-server {bootstrap} --alter --topic {refused.topic} --add-config {setting}="
    if isinstance(refused.error, TOO_LARGE):
        batch = RecordBatch(0)
        batch.fill([refused.item])
        size, said = batch.size(), f" is {limit}" if limit else ""
        return f"{record} of {size} bytes, its {setting}{said}; have the agent send less, or raise it by {alter}{size}`"
    said = f" of {limit}" if limit else ""
    return (
        f"{record} with the time {refused.item[3]} ms, its {setting}{said} (or its before.max.ms) forbids it; "
        f"have the agent send it with the time of what it was made from, or raise it by {alter}…`"
    )

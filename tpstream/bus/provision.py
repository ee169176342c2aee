"""Topics are made here and nowhere else, and a life begins here.

The record in `tp.life.v1` is written before any other, by the process whose request made
that topic; the others wait for it. So processes that start at the same time agree on a life.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from tpstream.bus import topics
from tpstream.bus.life import newest
from tpstream.bus.position import Life
from tpstream.bus.state import DELETIONS_MS
from tpstream.bus.topics import Topic
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable
from tpstream.messages import LifeRecord
from tpstream.settings import Settings

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 20_000_000
"""Bytes of the largest batch a topic takes: a payload of TPSTREAM_MAX_PAYLOAD and all that is made of it."""

LIFE_SECONDS = 5.0
"""Seconds to wait for the life record of the process that made the topic; longer, and it has died."""

RECREATED_MS = 60_000
"""A life older than this whose raw topic is missing belongs to a topic that was deleted, ms."""

_EXISTS = 36
_TRANSIENT = (7, 15, 41, 44)  # timed out, coordinator not available, not controller, policy not ready
_TEXT = {38: "; lower TPSTREAM_REPLICATION", 29: "; grant CREATE on the cluster"}

Wanted = dict[str, tuple[int, dict[str, str]]]
"""Topic name to its number of partitions and its configuration."""


async def provision(
    settings: Settings,
    *,
    changelogs: Sequence[str] = (),
    users: Sequence[Topic[Any]] = (),
    wait: float | None = None,
    fresh: bool = False,
) -> Life:
    """Make every topic that is missing and return the life they are in. May be repeated.

    `users`: topics of users' own (`app.topic`), beside tpstream's.
    Waits `wait` seconds for Kafka (None: for ever), then raises Unavailable.
    Raises ConfigurationError where a topic has another number of partitions than it should.
    `fresh` says that the broker has just been started empty: topics of another shape are
    accidents of early clients there, and are made anew instead.
    """
    admin = await connect(settings.bootstrap, wait)
    try:
        existing = await _partitions(admin)
        wanted = _wanted(settings, changelogs, users)
        life_topic, raw_topic = topics.life.name, topics.uplink_raw.name
        _check(existing, wanted if not fresh else {}, settings)
        if fresh and (strays := [name for name in wanted if name in existing and existing[name] != wanted[name][0]]):
            await admin.delete_topics(strays)
            existing = await _partitions(admin)
        made = await _create(admin, {life_topic: wanted[life_topic]}, existing, settings)
        record = await _life(settings, write=life_topic in made)
        if raw_topic not in existing and _now() - record.created_at > RECREATED_MS:
            record = await _begin_life(settings)
        await _create(admin, wanted, existing, settings)
        await _visible(admin, wanted, settings)
        return Life(bytes.fromhex(record.id))
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(f"Kafka at {settings.bootstrap} went away while topics were made: {error}") from None
    finally:
        await admin.close()


async def read_life(bootstrap: str) -> LifeRecord | None:
    """The newest life record, None where no topics were provisioned yet. Raises Unavailable."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=100,
        request_timeout_ms=10_000,
    )
    try:
        async with asyncio.timeout(10):
            await consumer.start()
            # Asking for an absent topic by name would make it on some brokers.
            if topics.life.name not in await consumer.topics():
                return None
            place = aiokafka.TopicPartition(topics.life.name, 0)
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            found: LifeRecord | None = None
            while True:
                found = newest((await consumer.getmany(place, timeout_ms=200)).get(place, ())) or found
                # The end is the high watermark of a fetch: ListOffsets is wrong on the embedded broker.
                end = consumer.highwater(place)
                if end is not None and await consumer.position(place) >= end:
                    return found
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(f"Kafka at {bootstrap}: the life could not be read: {error or 'no answer in 10 s'}") from None
    finally:
        await consumer.stop()


async def connect(bootstrap: str, wait: float | None = None) -> AIOKafkaAdminClient:
    """An admin client, once Kafka answers; says once that it waits. Unavailable after `wait` s."""
    deadline = None if wait is None else time.monotonic() + wait
    said = False
    while True:
        if await _listening(bootstrap):
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
            try:
                await admin.start()
                return admin
            except (KafkaError, TimeoutError, OSError):
                await admin.close()
        if deadline is not None and time.monotonic() > deadline:
            raise Unavailable(f"Kafka at {bootstrap} is not reachable; start it, or set TPSTREAM_KAFKA")
        if not said and deadline is None:
            log.warning("Kafka at %s is not reachable; waiting for it", bootstrap)
            said = True
        await asyncio.sleep(0.05)


async def _listening(bootstrap: str) -> bool:
    """Whether a bootstrap server takes connections (aiokafka logs an error for each that does not)."""
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection(host.strip("[]") or "127.0.0.1", int(port))
            writer.close()
            return True
    return False


def _wanted(settings: Settings, changelogs: Sequence[str], users: Sequence[Topic[Any]]) -> Wanted:
    size = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    compact = {"cleanup.policy": "compact"}
    wanted: Wanted = {
        topic.name: (
            (topic.partitions or settings.partitions) if topic.by_device else 1,
            size | (compact if topic.compact else {}),
        )
        for topic in (*topics.all_topics(), *users)
    }
    # A life is for ever; Kafka's default retention would end it after a week.
    wanted[topics.life.name][1]["retention.ms"] = "-1"
    changelog = size | compact | {"delete.retention.ms": str(DELETIONS_MS)}
    return wanted | dict.fromkeys(changelogs, (settings.partitions, changelog))


def _check(existing: dict[str, int], wanted: Wanted, settings: Settings) -> None:
    for name, (partitions, _) in wanted.items():
        if existing.get(name, partitions) != partitions:
            remedy = _remedy(name, existing[name], partitions, settings)
            raise ConfigurationError(
                f"Kafka at {settings.bootstrap}: topic {name} has {existing[name]} partitions "
                f"and should have {partitions}; {remedy}"
            )


def _remedy(name: str, there: int, wanted: int, settings: Settings) -> str:
    """What a person can do about a topic's number of partitions."""
    if topics.is_own(name):
        setting = f"set TPSTREAM_PARTITIONS={there}" if wanted == settings.partitions else "delete it"
        return f"{setting}, or delete all tp.* topics to begin a new life"
    declare = f"declare it with partitions={there}" + (
        f" (where an agent's tables are joined with it, set TPSTREAM_PARTITIONS={there})"
        if wanted == settings.partitions
        else ""
    )
    if there > wanted:
        return f"{declare}, or delete it: Kafka cannot lower the number"
    alter = f"kafka-topics.sh --bootstrap-server {settings.bootstrap} --alter --topic {name} --partitions {wanted}"
    return f"raise it by `{alter}` (keys move to other partitions then), or {declare}"


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Every topic with its number of partitions; asks for all, so that none is made by asking."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}


async def _create(admin: AIOKafkaAdminClient, wanted: Wanted, existing: dict[str, int], settings: Settings) -> set[str]:
    """Make what is missing; the names of those that this call made, not another process."""
    missing = {name: shape for name, shape in wanted.items() if name not in existing}
    made: set[str] = set()
    deadline = time.monotonic() + 30
    while missing:
        response = await admin.create_topics(
            [NewTopic(n, p, settings.replication, topic_configs=configs) for n, (p, configs) in missing.items()]
        )
        for name, code, *message in response.topic_errors:
            if code in _TRANSIENT and time.monotonic() < deadline:
                continue
            if code not in (0, _EXISTS):
                why = next((m for m in message if m), None) or for_code(code).__name__
                raise ConfigurationError(
                    f"Kafka at {settings.bootstrap} refused to make topic {name}: {why}{_TEXT.get(code, '')}"
                )
            if code == 0:
                made.add(name)
            missing.pop(name, None)
        existing.update({name: wanted[name][0] for name in made})
        if missing:
            await asyncio.sleep(0.2)
    return made


async def _visible(admin: AIOKafkaAdminClient, wanted: Wanted, settings: Settings) -> None:
    """Return when the broker that answers knows every topic (metadata spreads after creation)."""
    deadline = time.monotonic() + 30
    while True:
        existing = await _partitions(admin)
        absent = [name for name in wanted if not existing.get(name)]
        if not absent:
            return _check(existing, wanted, settings)
        if time.monotonic() > deadline:
            raise Unavailable(f"Kafka at {settings.bootstrap}: topic {absent[0]} was made but is not served yet")
        await asyncio.sleep(0.1)


async def _life(settings: Settings, *, write: bool) -> LifeRecord:
    """The life there is; else a new one, at once if `write`, or when nobody else has begun it."""
    deadline = time.monotonic() + (0 if write else LIFE_SECONDS)
    while True:
        with suppress(Unavailable):  # a topic that was made a moment ago may have no leader yet
            if (record := await read_life(settings.bootstrap)) is not None:
                return record
        if time.monotonic() >= deadline:
            return await _begin_life(settings)
        await asyncio.sleep(0.05)


async def _begin_life(settings: Settings) -> LifeRecord:
    """Write a life record and return the newest one, which may be of a process that did the same."""
    record = LifeRecord(id=uuid.uuid4().hex, created_at=_now(), partitions=settings.partitions)
    producer: Any = aiokafka.AIOKafkaProducer(bootstrap_servers=settings.bootstrap, acks="all")
    await producer.start()
    try:
        await producer.send_and_wait(
            topics.life.name, topics.life.encode(record), partition=0, timestamp_ms=record.created_at
        )
    finally:
        await producer.stop()
    log.info("a new life of the topics begins: %s", record.id)
    newest = await read_life(settings.bootstrap)
    if newest is None:
        raise TpstreamError(
            f"Kafka at {settings.bootstrap}: the life record cannot be read back; is tp.life.v1 intact?"
        )
    return newest


def _now() -> int:
    return time.time_ns() // 1_000_000

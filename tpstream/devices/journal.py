"""Read and write the configuration topics once, as the command line does, within bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import aiokafka
from aiokafka.errors import KafkaError

from tpstream.bus import topics
from tpstream.bus.provision import connect, read_life
from tpstream.bus.reader import read_to_end
from tpstream.devices.catalog import FOLLOWED, Catalog
from tpstream.errors import Unavailable
from tpstream.settings import Settings

REMEDY = "start `tpstream up` or a worker, or set TPSTREAM_KAFKA"

SECONDS = 10.0
"""How long Kafka may take to answer."""

Entry = tuple[topics.Topic[Any], str, Any]
"""Topic, key, and the value to write; None: a tombstone."""


async def read(settings: Settings) -> Catalog:
    """Everything in the configuration topics as of now, as a catalog that does not follow.

    Raises Unavailable where Kafka does not answer, or the topics were never made.
    """
    catalog = Catalog(settings)
    try:
        async with asyncio.timeout(SECONDS):
            await reach(settings)
            if await read_life(settings.bootstrap) is None:
                raise Unavailable(f"Kafka at {settings.bootstrap} has no topics of tpstream yet; {REMEDY}")
            places = {aiokafka.TopicPartition(topic.name, 0): 0 for topic in FOLLOWED}
            async for _, records in read_to_end(settings.bootstrap, places, patience=SECONDS):
                catalog.take_records(records, complete=False)
            catalog.settle()
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(f"Kafka at {settings.bootstrap} does not answer ({reason(error)}); {REMEDY}") from None
    return catalog


async def reach(settings: Settings) -> None:
    """Unavailable at once, in few words, where nobody listens on Kafka's address."""
    try:
        admin = await connect(settings.bootstrap, wait=0)
    except Unavailable:
        raise Unavailable(f"Kafka at {settings.bootstrap} is not reachable; {REMEDY}") from None
    await admin.close()


def reason(error: BaseException) -> str:
    """What an error of the Kafka client says, in few words."""
    return str(error).split(" [(")[0] or "no answer in time"


async def write(settings: Settings, entries: Iterable[Entry]) -> None:
    """Write records in order, each acknowledged (`acks=all`) before the next topic's begin.

    Raises Unavailable where Kafka does not take them in time; what was not reached is not written.
    """
    producer: Any = aiokafka.AIOKafkaProducer(
        bootstrap_servers=settings.bootstrap, acks="all", max_request_size=20_000_000, request_timeout_ms=5_000
    )
    now = time.time_ns() // 1_000_000
    try:
        async with asyncio.timeout(SECONDS):
            await producer.start()
            for topic, key, value in entries:
                data = None if value is None else topic.encode(value)
                await producer.send_and_wait(topic.name, data, key=key.encode(), partition=0, timestamp_ms=now)
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(
            f"Kafka at {settings.bootstrap} did not take the change ({reason(error)}); try again"
        ) from None
    finally:
        await producer.stop()

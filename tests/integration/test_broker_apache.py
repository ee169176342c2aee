"""Apache Kafka as tests break it: what it has acknowledged outlives its process, and a pause."""

from __future__ import annotations

import asyncio

import aiokafka
import pytest
from aiokafka import TopicPartition
from parts.kafka import Kafka

from tpstream.bus import topics
from tpstream.bus.reader import read_to_end

pytestmark = pytest.mark.apache

TOPIC = topics.uplink_raw.name
PAUSE = 5.0
"""Seconds; longer than the broker's session with its own controller."""


async def produce(broker: Kafka, *values: bytes) -> None:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(TOPIC, value, partition=0)
    finally:
        await producer.stop()


async def stored(broker: Kafka) -> list[bytes]:
    return [
        record.value
        async for _, some in read_to_end(broker.bootstrap, {TopicPartition(TOPIC, 0): 0})
        for record in some
    ]


async def test_what_was_acknowledged_outlives_a_kill_and_a_pause(fresh_apache: Kafka) -> None:
    life = fresh_apache.life
    await produce(fresh_apache, b"1", b"2")
    fresh_apache.restart()
    assert fresh_apache.life == life
    await produce(fresh_apache, b"3")
    fresh_apache.pause()
    await asyncio.sleep(PAUSE)
    fresh_apache.go_on()
    await produce(fresh_apache, b"4")
    assert await stored(fresh_apache) == [b"1", b"2", b"3", b"4"]


async def test_a_new_life_is_empty(fresh_apache: Kafka) -> None:
    life = fresh_apache.life
    await produce(fresh_apache, b"1")
    fresh_apache.new_life()
    assert fresh_apache.life != life
    assert await stored(fresh_apache) == []

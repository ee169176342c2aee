"""The producer on a broker: order, offsets, and a stranger who writes between."""

from __future__ import annotations

import aiokafka
import pytest
from aiokafka import TopicPartition
from parts.kafka import Kafka

from tpstream.bus.batch import Outgoing
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.bus.reader import read_to_end

pytestmark = pytest.mark.kafka


async def test_a_strangers_records_between_ours_are_seen(kafka: Kafka) -> None:
    topic, settings = "tp.test-gaps", kafka.settings()
    await provision(settings, changelogs=(topic,), wait=10)
    ours = Producer(settings.bootstrap, settings.partitions)
    ours.watch_gaps(topic)
    ours.expect(topic, 0, 0)
    stranger = aiokafka.AIOKafkaProducer(bootstrap_servers=settings.bootstrap)
    await ours.start()
    await stranger.start()
    try:
        for written in (3, 0, 2):
            for n in range(written):
                await stranger.send_and_wait(topic, b"stranger", key=b"%d" % n, partition=0)
            ours.add_all([Outgoing(topic, 0, b"k%d" % n, b"ours", [("tp", b"x")], 1_000 + n) for n in range(500)])
            await ours.flush()
    finally:
        await stranger.stop()
        await ours.stop()
    assert ours.gaps == {(topic, 0): [(0, 3), (1_003, 1_005)]}
    assert ours.ends[topic, 0] == 1_505
    found = [r async for _, some in read_to_end(settings.bootstrap, {TopicPartition(topic, 0): 0}) for r in some]
    assert [r.offset for r in found if r.value == b"stranger"] == [0, 1, 2, 1_003, 1_004]
    assert [(r.key, r.timestamp, r.headers) for r in found if r.value == b"ours"] == [
        (b"k%d" % n, 1_000 + n, (("tp", b"x"),)) for _ in range(3) for n in range(500)
    ]

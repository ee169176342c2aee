"""Input that Kafka deletes before a worker has read it: gone, but not without a word."""

from __future__ import annotations

import time

import aiokafka
import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from parts.kafka import Kafka
from parts.lane import publish, running, until

from tpstream.app import App
from tpstream.bus.batch import Batch
from tpstream.bus.partitioner import partition_of
from tpstream.bus.provision import provision
from tpstream.observability import metrics

pytestmark = [pytest.mark.kafka, pytest.mark.apache]


async def test_offsets_that_retention_has_taken_are_counted_and_said(
    apache: Kafka, caplog: pytest.LogCaptureFixture
) -> None:
    settings = apache.settings()
    app, seen = App(), list[int]()
    source = app.topic("deleted.in.v1", bytes)

    @app.batch_agent(source)
    async def read_what_is_left(batch: Batch) -> None:
        seen.extend(record.offset for record in batch)

    await provision(settings, users=tuple(app.topics.values()), wait=20)
    now = time.time_ns() // 1_000_000
    await publish(settings, source.name, [("d", b"", now)] * 50)
    async with running(settings, "deleted", app) as runner:
        await until(lambda: len(seen) == 50 and runner.lag() == 0)
    assert "were not read" not in caplog.text
    await publish(settings, source.name, [("d", b"", now)] * 250)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.bootstrap)
    await admin.start()
    place = aiokafka.TopicPartition(source.name, partition_of(b"d", settings.partitions))
    await admin.delete_records({place: RecordsToDelete(before_offset=200)})
    await admin.close()
    async with running(settings, "deleted", app) as runner:
        await until(lambda: len(seen) == 150 and runner.lag() == 0)
    assert seen == [*range(50), *range(200, 300)]
    assert f"{source.name}-{place.partition}: offsets 50 to 199 were not read before they were deleted" in caplog.text
    assert metrics.INPUT_MISSED.labels(source.name)._value.get() == 150

"""The embedded broker makes any topic that a client asks for, in a shape of its own: provisioning mends that."""

from __future__ import annotations

import aiokafka
import pytest
from parts.kafka import Kafka

from tpstream.bus import topics
from tpstream.bus.provision import connect, provision
from tpstream.errors import ConfigurationError

pytestmark = pytest.mark.kafka


async def test_topics_of_early_clients_are_made_anew_on_a_fresh_broker(fresh_embedded: Kafka) -> None:
    admin = await connect(fresh_embedded.bootstrap, 5)
    await admin.delete_topics(list(await admin.list_topics()))
    await admin.close()
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=fresh_embedded.bootstrap)
    await producer.start()
    assert len(await producer.partitions_for(topics.uplink_raw.name)) != 8  # the broker's own idea
    await producer.stop()
    with pytest.raises(ConfigurationError):
        await provision(fresh_embedded.settings(), wait=5)
    await provision(fresh_embedded.settings(), wait=5, fresh=True)
    admin = await connect(fresh_embedded.bootstrap, 5)
    (raw,) = await admin.describe_topics([topics.uplink_raw.name])
    await admin.close()
    assert len(raw["partitions"]) == 8

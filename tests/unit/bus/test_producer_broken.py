"""What can never be sent is refused at once, or said to whoever waits for it; nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tpstream.bus.producer import Producer
from tpstream.errors import Rejected, TpstreamError


class Acknowledges:
    """Stands where aiokafka's producer does: takes every batch."""

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> Any:
        future = asyncio.get_running_loop().create_future()
        future.set_result(type("Metadata", (), {"offset": 0}))
        return future


@pytest.fixture
def producer() -> Producer:
    one = Producer("nowhere:1", 1)
    one._kafka = Acknowledges()  # type: ignore[assignment]
    return one


async def test_a_time_that_kafka_has_no_room_for_is_refused(producer: Producer) -> None:
    with pytest.raises(Rejected, match="9223372036854775808"):
        producer.add("t", 0, b"", b"", (), 1 << 63)
    producer.add("t", 0, b"", b"", (), 1)
    await producer.flush()
    assert (producer.unacknowledged, producer.available) == (0, True)


async def test_whoever_waits_for_what_cannot_be_sent_hears_of_it(producer: Producer) -> None:
    producer.add("t", 0, b"", b"", (("name\udc80", b""),), 1)
    for _ in range(2):  # those who wait, and those who come later
        with pytest.raises(TpstreamError, match="t-0: records could not be sent: UnicodeEncodeError"):
            async with asyncio.timeout(5):
                await producer.flush()
    assert not producer.available

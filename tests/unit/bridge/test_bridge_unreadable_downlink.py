"""A record on the downlink topic that is no publish to a device: passed over, and the next one is published."""

from __future__ import annotations

from aiokafka import ConsumerRecord

from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink import Downlink
from connectors.mqtt_bridge.downlink_reader import DownlinkReader
from tpstream.bus.topics import downlink_mqtt


class Device:
    def __init__(self) -> None:
        self.taken: list[Downlink] = []

    async def room(self) -> None: ...

    def deliver(self, downlink: Downlink) -> None:
        self.taken.append(downlink)


def record(offset: int, headers: list[tuple[str, bytes]]) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(downlink_mqtt.name, 0, offset, 1, 0, b"d", b"on", None, 1, 2, headers)


async def test_it_is_passed_over() -> None:
    device, counts = Device(), Counts()
    reader = DownlinkReader("nowhere:1", 1, counts, device)
    await reader.publish(record(0, []))
    await reader.publish(record(1, [("topic", b"devices/command/d/1"), ("message_id", b"1")]))
    assert (counts.downlinks, counts.downlinks_unreadable) == (2, 1)
    assert [one.payload for one in device.taken] == [b"on"]

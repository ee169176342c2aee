"""The load of full workers: publishes of three points each in the raw topic, as a bridge writes them."""

from __future__ import annotations

import asyncio
import struct
import time
from dataclasses import dataclass, field

import aiokafka

from benchmarks.readings import BATCH_BYTES, PARTITIONS
from tpstream.bus import topics
from tpstream.bus.envelope import Identity, Kind, RawHeader
from tpstream.bus.partitioner import partition_of

POINTS = 3


@dataclass
class Uplink:
    """`count` publishes of `devices` devices, one a second each, the last of them just now.

    `binary`: six bytes for a Lua decoder (application/scripts/six-bytes.lua), else JSON.
    """

    devices: int
    count: int
    binary: bool = False
    end: int = field(default_factory=lambda: int(time.time()) * 1000)

    def time_of(self, n: int) -> int:
        """The time of publish n and of its delivery, ms."""
        return self.end - (self.count - n) * 1_000 // self.devices

    def name_of(self, n: int) -> str:
        """The device of publish n; a profile gives those of binary payloads their script."""
        return f"{'bin' if self.binary else 'load'}-{n % self.devices:07d}"

    def payload(self, n: int) -> bytes:
        """What the device said."""
        temperature, humidity, battery = n * 7919 % 4000, n * 104_729 % 10_000, 3_300 + n % 400
        if self.binary:
            return struct.pack(">hHH", temperature, humidity, battery)
        return (
            f'{{"ts":{self.time_of(n)},"values":{{"temperature":{temperature / 100},"humidity":{humidity / 100},'
            f'"battery":{battery / 1000}}}}}'
        ).encode()

    def write(self, bootstrap: str) -> None:
        """Write all of it. The topics exist."""
        asyncio.run(self._write(bootstrap))

    async def _write(self, bootstrap: str) -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks=1, max_batch_size=BATCH_BYTES, max_request_size=4_000_000
        )
        await producer.start()
        batches = {number: producer.create_batch() for number in range(PARTITIONS)}
        sent: set[asyncio.Future[object]] = set()
        sequences = [0] * PARTITIONS
        try:
            for n in range(self.count):
                device = self.name_of(n)
                number = partition_of(device.encode(), PARTITIONS)
                # As a bridge counts them: who repeats these is taken for a device that sends again.
                sequences[number] += 1
                tp = RawHeader(
                    Kind.PUBLISH,
                    1,
                    identity=Identity.LOGIN,
                    incarnation=1,
                    sequence=sequences[number],
                    session=n % self.devices + 1,
                    packet_id=n // self.devices % 65_535 + 1,
                )
                record = {
                    "key": device.encode(),
                    "value": self.payload(n),
                    "timestamp": self.time_of(n),
                    "headers": [("topic", f"devices/{device}/telemetry".encode()), ("tp", tp.pack())],
                }
                if batches[number].append(**record) is None:
                    sent.add(await producer.send_batch(batches[number], topics.uplink_raw.name, partition=number))
                    batches[number] = producer.create_batch()
                    batches[number].append(**record)
                    if len(sent) > 100:
                        await asyncio.wait(sent)
                        sent.clear()
            for number, batch in batches.items():
                sent.add(await producer.send_batch(batch, topics.uplink_raw.name, partition=number))
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

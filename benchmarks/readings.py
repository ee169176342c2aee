"""The load: readings of many devices as plain JSON, written into a topic before anything is measured.

Device `n % devices` sends message n; times rise over the whole topic, so nothing is late anywhere. After
the last reading each device sends one an hour later, which closes all its windows. What every contender
must find is computed here, from the numbers and not from the topic.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import aiokafka

from tpstream.bus.partitioner import partition_of

PARTITIONS = 8
BYTES = 159
"""Of each reading: the size of PITFALLS' figures for Faust."""

WINDOW_MS = 10_000
BATCH_BYTES = 64_000
AFTER_MS = 3_600_000


@dataclass
class Load:
    """Readings of `devices` devices, every `step` ms each, `count` in all; `+ devices` that close the windows."""

    topic: str
    devices: int
    count: int
    step: int
    base: int = field(default_factory=lambda: (int(time.time()) // 600 * 600 - 172_800) * 1000)

    @property
    def total(self) -> int:
        """Records in the topic."""
        return self.count + self.devices

    def time_of(self, n: int) -> int:
        """The time of reading n, ms."""
        if n >= self.count:
            return self.time_of(self.count - 1) + AFTER_MS
        turn, device = divmod(n, self.devices)
        return self.base + turn * self.step + device * self.step // self.devices

    def value_of(self, n: int) -> int:
        """The temperature of reading n, in hundredths."""
        return n * 7919 % 4000

    def name_of(self, n: int) -> str:
        """The device of reading n."""
        return f"d{n % self.devices:07d}"

    def payload(self, n: int) -> bytes:
        """Reading n as it is on the topic."""
        head = (
            f'{{"ts":{self.time_of(n)},"temperature":{self.value_of(n) / 100},"unit":"celsius",'
            f'"firmware":"2.14.1","status":"ok","note":"'
        )
        return f'{head}{"x" * (BYTES - len(head) - 2)}"}}'.encode()

    def expected(self) -> dict[tuple[str, int], tuple[float, int]]:
        """Sum and count of each window that must be found, by device and start (ms)."""
        sums: dict[tuple[int, int], int] = {}
        counts: dict[tuple[int, int], int] = {}
        for n in range(self.count):
            at = self.time_of(n)
            place = (n % self.devices, at - at % WINDOW_MS)
            sums[place] = sums.get(place, 0) + self.value_of(n)
            counts[place] = counts.get(place, 0) + 1
        return {
            (self.name_of(device), start): (total / 100, counts[device, start])
            for (device, start), total in sums.items()
        }

    def wrong(self, found: dict[tuple[str, int], float]) -> str:
        """How the means that a contender found differ from what they should be; empty: they do not.

        Windows of the closing readings are not looked at.
        """
        last = self.time_of(self.count - 1) + AFTER_MS - WINDOW_MS
        found = {place: mean for place, mean in found.items() if place[1] < last}
        expected = self.expected()
        if missing := expected.keys() - found.keys():
            return f"{len(missing)} of {len(expected)} windows are missing"
        if more := found.keys() - expected.keys():
            return f"{len(more)} windows too many"
        other = [p for p, (total, count) in expected.items() if abs(found[p] - total / count) > 1e-6]
        return f"{len(other)} of {len(expected)} means are wrong" if other else ""

    def write(self, bootstrap: str) -> float:
        """Write all of it; seconds. The topic exists, with PARTITIONS partitions."""
        began = time.monotonic()
        asyncio.run(self._write(bootstrap))
        return time.monotonic() - began

    async def _write(self, bootstrap: str) -> None:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks=1, max_batch_size=BATCH_BYTES, max_request_size=4_000_000
        )
        await producer.start()
        places = {self.name_of(n): partition_of(self.name_of(n).encode(), PARTITIONS) for n in range(self.devices)}
        batches = {number: producer.create_batch() for number in range(PARTITIONS)}
        sent: set[asyncio.Future[object]] = set()
        try:
            for n in range(self.total):
                name = self.name_of(n)
                number = places[name]
                key, value, at = name.encode(), self.payload(n), self.time_of(n)
                if batches[number].append(key=key, value=value, timestamp=at) is None:
                    sent.add(await producer.send_batch(batches[number], self.topic, partition=number))
                    batches[number] = producer.create_batch()
                    batches[number].append(key=key, value=value, timestamp=at)
                    if len(sent) > 100:
                        await asyncio.wait(sent)
                        sent.clear()
            for number, batch in batches.items():
                sent.add(await producer.send_batch(batch, self.topic, partition=number))
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

"""Publishes the stream into the raw topic as a bridge does, and keeps the ledger; a process of its own.

`acks=all`, one batch in flight per partition, the header `tp` with incarnation and sequence. A batch whose fate
is unknown is sent again as it was, for ever: so every message is in the raw topic at least once.

python -m fault.campaign.publisher BOOTSTRAP PARTITIONS BASE RATE LEDGER
It prints a line of JSON a second. On SIGTERM it stops after the messages that are due, waits until Kafka has
acknowledged them all, prints how many they were, and ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import signal
import sys
import time
from collections import deque
from pathlib import Path

import aiokafka
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2
from fault.campaign.ledger import Ledger
from fault.campaign.stream import Plan

from tpstream.bus.envelope import Identity, Kind, RawHeader

TOPIC = "tp.uplink.raw.v1"
TICK = 0.02
LARGEST = 500
"""Messages in a batch."""

Record = tuple[int, bytes, bytes, int, list[tuple[str, bytes]]]
"""Number, key, payload, delivery time, headers."""


class Publisher:
    """The devices and their bridge."""

    def __init__(self, bootstrap: str, partitions: int, plan: Plan, ledger: Ledger) -> None:
        self.plan, self.ledger = plan, ledger
        self.sent = self.acknowledged = self.repeated = 0
        self._bootstrap, self._partitions = bootstrap, partitions
        self._incarnation = secrets.randbits(64)
        self._sequences = [0] * partitions
        self._waiting: list[deque[Record]] = [deque() for _ in range(partitions)]
        self._more = [asyncio.Event() for _ in range(partitions)]
        self._stop = asyncio.Event()
        self._kafka: aiokafka.AIOKafkaProducer

    async def run(self) -> None:
        """Until SIGTERM, and then until all is acknowledged."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        self._kafka = aiokafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            request_timeout_ms=5_000,
            retry_backoff_ms=100,
            max_batch_size=500_000,
            max_request_size=4_000_000,
        )
        await self._kafka.start()
        senders = [asyncio.create_task(self._send(number)) for number in range(self._partitions)]
        said = 0.0
        while not self._stop.is_set() and not any(sender.done() for sender in senders):
            self._take_due(int(time.time() * 1000))
            if time.monotonic() - said >= 1:
                said = time.monotonic()
                self._say()
            await asyncio.sleep(TICK)
        while self.acknowledged < self.sent:
            for sender in senders:
                if sender.done():
                    sender.result()  # raises: one that has ended by itself has failed
            await asyncio.sleep(TICK)
        self._say(finished=True)
        for sender in senders:
            sender.cancel()
        await self._kafka.stop()

    def _say(self, **more: object) -> None:
        status = {"sent": self.sent, "acknowledged": self.acknowledged, "repeated": self.repeated, **more}
        print(json.dumps(status), flush=True)

    def _take_due(self, now: int) -> None:
        while self.plan.due(self.sent) <= now:
            n = self.sent
            self.sent += 1
            message = self.plan.message(n)
            key = message.device.encode()
            number = (murmur2(key) & 0x7FFFFFFF) % self._partitions
            self._sequences[number] += 1
            tp = RawHeader(
                Kind.PUBLISH,
                qos=1,
                identity=Identity.LOGIN,
                incarnation=self._incarnation,
                sequence=self._sequences[number],
                session=1 + (murmur2(key) & 0x7FFFFFFF),
                packet_id=1 + n % 65_535,
            ).pack()
            headers = [("topic", f"devices/{message.device}/telemetry".encode()), ("tp", tp)]
            delivery = max(now, message.due)
            self._waiting[number].append((n, key, message.payload, delivery, headers))
            self._more[number].set()

    async def _send(self, number: int) -> None:
        waiting, more = self._waiting[number], self._more[number]
        while True:
            await more.wait()
            more.clear()
            while waiting:
                batch = [waiting.popleft() for _ in range(min(LARGEST, len(waiting)))]
                while not await self._deliver(number, batch):
                    self.repeated += 1
                    await asyncio.sleep(0.1)
                self.ledger.acknowledged(record[0] for record in batch)
                self.acknowledged += len(batch)
                await asyncio.sleep(TICK)

    async def _deliver(self, number: int, batch: list[Record]) -> bool:
        builder = self._kafka.create_batch()
        for _, key, payload, delivery, headers in batch:
            assert builder.append(key=key, value=payload, timestamp=delivery, headers=headers) is not None
        try:
            await (await self._kafka.send_batch(builder, TOPIC, partition=number))
        except (KafkaError, TimeoutError, OSError):
            return False
        return True


if __name__ == "__main__":
    bootstrap, partitions, base, rate, path = sys.argv[1:]
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    asyncio.run(Publisher(bootstrap, int(partitions), Plan(int(base), int(rate)), Ledger(Path(path))).run())

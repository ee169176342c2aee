"""A load of devices over plain MQTT 3.1.1, cheap enough to run beside what it measures.

Of MQTT it knows CONNECT, PUBLISH (QoS 1), PUBACK and nothing else: client libraries cost
50 to 100 µs a message, this about a tenth. Run it in a process of its own, so that its CPU can be
told from the rest: `python -m benchmarks.load --port 1883 --rate 5000 --seconds 30` prints a JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import struct
import sys
import time
from array import array
from collections import deque
from functools import partial
from typing import cast

import msgspec
import uvloop

IN_FLIGHT = 20
TICK = 0.02
"""Seconds between two looks at what is due."""
KEEPALIVE = 0
"""Off: the load itself shows that it is alive."""


class Report(msgspec.Struct, frozen=True):
    """What the load did. Ids are first_id … first_id + sent - 1, each sent once."""

    devices: int
    sent: int
    acknowledged: int
    seconds: float
    """From the first publish to the last PUBACK."""
    per_second: float
    cpu_us_per_message: float
    puback_ms_p50: float
    puback_ms_p99: float
    puback_ms_max: float
    most_behind: int
    """The most messages that were due and could not be sent, as the acknowledgements were late."""
    first_id: int


def packet(kind: int, body: bytes) -> bytes:
    """An MQTT packet with its remaining length."""
    length, size = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        size += bytes((digit | (0x80 if length else 0),))
        if not length:
            return bytes((kind,)) + size + body


def text(value: str) -> bytes:
    """A UTF-8 string with its length."""
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def connect(number: str, client_id: str) -> bytes:
    """CONNECT, clean session, the device's number as user name."""
    return packet(0x10, text("MQTT") + bytes((4, 0x82)) + struct.pack(">H", KEEPALIVE) + text(client_id) + text(number))


def publish(topic: bytes, packet_id: int, payload: bytes) -> bytes:
    """PUBLISH at QoS 1; `topic` with its length before it."""
    length = len(topic) + 2 + len(payload)
    if length < 128:
        return b"\x32%c%b%b%b" % (length, topic, packet_id.to_bytes(2, "big"), payload)
    return packet(0x32, topic + packet_id.to_bytes(2, "big") + payload)


class Device(asyncio.Protocol):
    """One connection with at most IN_FLIGHT unacknowledged publishes."""

    def __init__(self, number: str, load: Load) -> None:
        self.number = number
        self.load = load
        self.topic = text(f"devices/{number}/telemetry")
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.in_flight: deque[tuple[int, float]] = deque()
        """Packet id and time of each, in order."""
        self.due = 0
        self.packet_id = 0
        self.rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Log in."""
        self.transport = cast(asyncio.WriteTransport, transport)
        self.transport.write(connect(self.number, f"load-{self.number}-{random.getrandbits(32):x}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """End the load: what it measures must not lose connections."""
        self.load.fail(f"{self.number}: the connection was closed ({exc or 'by the other side'})")

    def data_received(self, data: bytes) -> None:
        """Take CONNACK and PUBACKs; send what has room now."""
        data = self.rest + data
        at, end, now = 0, len(data), time.perf_counter()
        while end - at >= 4:
            if data[at] == 0x40:
                self._acknowledged(data[at + 2] << 8 | data[at + 3], now)
            elif data[at] == 0x20 and data[at + 3] == 0:
                self.connected.set_result(None)
            else:
                self.load.fail(f"{self.number}: unexpected packet {data[at : at + 4].hex(' ')}")
                return
            at += 4
        self.rest = data[at:]
        if self.due:
            self.send(now)

    def _acknowledged(self, packet_id: int, now: float) -> None:
        expected, sent_at = self.in_flight.popleft()
        if expected != packet_id:
            self.load.fail(f"{self.number}: PUBACK {packet_id} where {expected} was next")
            return
        self.load.acknowledged(now - sent_at)

    def send(self, now: float) -> None:
        """Write as many of the due publishes as there is room for, in one write."""
        count = min(self.due, IN_FLIGHT - len(self.in_flight))
        if count <= 0:
            return
        self.due -= count
        packets = []
        for _ in range(count):
            self.packet_id = self.packet_id % 65535 + 1
            self.in_flight.append((self.packet_id, now))
            packets.append(publish(self.topic, self.packet_id, self.load.payload()))
        self.transport.write(b"".join(packets))


class Load:
    """All devices, and what they measured."""

    def __init__(self, devices: int, total: int, rate: float | None, first_id: int) -> None:
        self.devices, self.total, self.rate, self.first_id = devices, total, rate, first_id
        self.sent = 0
        self.latencies = array("d")
        self.most_behind = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.last_ack = 0.0

    def payload(self) -> bytes:
        """Three points; `id` is unique over the load."""
        n = self.first_id + self.sent
        self.sent += 1
        return b'{"id":%d,"temperature":%d.%02d,"humidity":%d.5}' % (n, 20 + n % 10, n % 100, 40 + n % 20)

    def acknowledged(self, seconds: float) -> None:
        """A PUBACK came."""
        self.latencies.append(seconds)
        if len(self.latencies) == self.total:
            self.last_ack = time.perf_counter()
            if not self.done.done():
                self.done.set_result(None)

    def fail(self, why: str) -> None:
        """Give up."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(why))

    async def run(self, host: str, port: int, prefix: str, patience: float) -> Report:
        """Connect all, publish, wait for the last PUBACK. Raises RuntimeError if that does not come."""
        loop = asyncio.get_running_loop()
        fleet: list[Device] = []
        for n in range(self.devices):
            _, device = await loop.create_connection(partial(Device, f"{prefix}-{n}", self), host, port)
            fleet.append(device)
        async with asyncio.timeout(patience):
            await asyncio.gather(*(device.connected for device in fleet))
        started, cpu = time.perf_counter(), time.process_time()
        pump = asyncio.create_task(self._pump(fleet, started))
        expected = 0 if self.rate is None else self.total / self.rate
        try:
            async with asyncio.timeout(expected + patience):
                await self.done
        except TimeoutError:
            raise RuntimeError(
                f"{len(self.latencies)} of {self.sent} publishes acknowledged {patience:g} s after the end"
            ) from None
        finally:
            pump.cancel()
        return self._report(self.last_ack - started, time.process_time() - cpu)

    async def _pump(self, fleet: list[Device], started: float) -> None:
        given = 0
        while given < self.total:
            now = time.perf_counter()
            due = self.total if self.rate is None else min(self.total, int((now - started) * self.rate))
            for n in range(given, due):
                fleet[n % self.devices].due += 1
            given = due
            for device in fleet:
                if device.due:
                    device.send(now)
            if self.rate is not None:
                self.most_behind = max(self.most_behind, sum(device.due for device in fleet))
            await asyncio.sleep(TICK)

    def _report(self, seconds: float, cpu: float) -> Report:
        ordered = sorted(self.latencies)
        return Report(
            devices=self.devices,
            sent=self.sent,
            acknowledged=len(ordered),
            seconds=round(seconds, 3),
            per_second=round(len(ordered) / seconds, 1),
            cpu_us_per_message=round(cpu / len(ordered) * 1e6, 2),
            puback_ms_p50=round(ordered[len(ordered) // 2] * 1000, 2),
            puback_ms_p99=round(ordered[int(len(ordered) * 0.99)] * 1000, 2),
            puback_ms_max=round(ordered[-1] * 1000, 2),
            most_behind=self.most_behind,
            first_id=self.first_id,
        )


def main() -> int:
    """The command line; 1 and one line on stderr if the load could not be carried through."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.load", description="A load of devices over MQTT.")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=1883)
    options.add_argument("--devices", type=int, default=50)
    options.add_argument("--rate", default="5000", help="messages per second over all devices, or max")
    options.add_argument("--seconds", type=float, default=30.0, help="with a rate: how long")
    options.add_argument("--messages", type=int, help="with rate max: how many [100000]")
    options.add_argument("--first-id", type=int, default=1)
    options.add_argument("--prefix", default="load")
    options.add_argument("--patience", type=float, default=30.0, help="seconds to wait for the last PUBACK")
    given = options.parse_args()
    rate = None if given.rate == "max" else float(given.rate)
    total = given.messages or (100_000 if rate is None else int(rate * given.seconds))

    async def run() -> Report:
        load = Load(given.devices, total, rate, given.first_id)
        return await load.run(given.host, given.port, given.prefix, given.patience)

    try:
        report = uvloop.run(run())
    except (RuntimeError, OSError, TimeoutError) as error:
        print(f"load: {str(error) or 'no CONNACK in time'}", file=sys.stderr)
        return 1
    print(msgspec.json.encode(report).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())

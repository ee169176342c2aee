"""Devices whose messages are timed: from publish to row, and from publish to command.

A latency is measured by one clock, in one process. A row counts as there when a query has
returned it; the time between two queries is in the figure, so it is an upper bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque

import aiohttp
import aiomqtt
import msgspec

ROW_PROBES, ROW_INTERVAL, POLL_INTERVAL = 8, 0.5, 0.1
COMMAND_PROBES, COMMAND_INTERVAL = 16, 8.0
"""A device has one command in flight: the next is due only when the one before has ended for sure."""


class Latencies:
    """Seconds, as they come in."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def quantile(self, q: float) -> float:
        """In seconds; not a number where nothing was measured."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else math.nan


class RowProbes:
    """A few devices publish; the store is asked again and again which of it is there."""

    def __init__(self, mqtt_port: int, store: str, name: str) -> None:
        self.mqtt_port, self.store = mqtt_port, store
        self.devices = [f"row-{name}-{n}" for n in range(ROW_PROBES)]
        self.waiting: dict[str, deque[tuple[int, float]]] = {device: deque() for device in self.devices}
        self.latencies = Latencies()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            for n, device in enumerate(self.devices):
                group.create_task(self._publish(device, n * ROW_INTERVAL / ROW_PROBES))

    async def _publish(self, device: str, offset: float) -> None:
        async with aiomqtt.Client("127.0.0.1", self.mqtt_port, username=device) as client:
            await asyncio.sleep(offset)
            number = 0
            while True:
                number += 1
                self.waiting[device].append((number, time.perf_counter()))
                payload = msgspec.json.encode({"probe": number, "temperature": 21.5, "humidity": 40})
                await client.publish(f"devices/{device}/telemetry", payload, qos=1, timeout=math.inf)
                await asyncio.sleep(ROW_INTERVAL)

    async def _poll(self) -> None:
        names = ", ".join(f"'{device}'" for device in self.devices)
        query = (
            f"SELECT device, max(number) FROM telemetry WHERE tenant = 'default' AND device IN ({names}) "
            "AND key = 'probe' GROUP BY device FORMAT JSONCompactEachRow"
        )
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.post(self.store, data=query) as answer:
                    body = await answer.read()
                    if answer.status != 200:
                        raise RuntimeError(f"the store refused the probe's query: {body[:200].decode()}")
                now = time.perf_counter()
                for line in body.splitlines():
                    device, number = msgspec.json.decode(line)
                    waiting = self.waiting[device]
                    while waiting and waiting[0][0] <= number:
                        self.latencies.seconds.append(now - waiting.popleft()[1])
                await asyncio.sleep(POLL_INTERVAL)


class CommandProbes:
    """Each message of these devices closes their window of a second, and so is answered by a command.

    A second kind of them is asked over REST, to tell the way down from the way up.
    """

    def __init__(self, mqtt_port: int, web: str, name: str) -> None:
        self.mqtt_port, self.web = mqtt_port, web
        self.asked = [f"asked-{name}-{n}" for n in range(COMMAND_PROBES)]
        self.from_rest = Latencies()
        self.devices = [f"command-{name}-{n}" for n in range(COMMAND_PROBES)]
        self.latencies = Latencies()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for n, device in enumerate(self.devices):
                group.create_task(self._probe(device, n * COMMAND_INTERVAL / COMMAND_PROBES))
            for n, device in enumerate(self.asked):
                group.create_task(self._ask(device, n * COMMAND_INTERVAL / COMMAND_PROBES))

    async def _ask(self, device: str, offset: float) -> None:
        sent: deque[float] = deque()
        address = f"{self.web}/api/v1/devices/{device}/commands"
        async with (
            aiomqtt.Client("127.0.0.1", self.mqtt_port, username=device) as client,
            aiohttp.ClientSession() as web,
        ):
            await client.subscribe(f"devices/command/{device}/+", qos=1)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._obey(device, client, sent, self.from_rest))
                await asyncio.sleep(offset)
                while True:
                    sent.append(time.perf_counter())
                    async with web.post(address, json={"method": "probe"}) as answer:
                        if answer.status >= 300:
                            raise RuntimeError(f"POST {address}: {answer.status} {(await answer.text())[:200]}")
                    await asyncio.sleep(COMMAND_INTERVAL)

    async def _probe(self, device: str, offset: float) -> None:
        sent: deque[float] = deque()
        async with aiomqtt.Client("127.0.0.1", self.mqtt_port, username=device) as client:
            await client.subscribe(f"devices/command/{device}/+", qos=1)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish(device, client, offset, sent))
                group.create_task(self._obey(device, client, sent, self.latencies))

    async def _publish(self, device: str, client: aiomqtt.Client, offset: float, sent: deque[float]) -> None:
        await asyncio.sleep(offset)
        second = int(time.time())
        value, first = 1, True
        while True:
            # The values of the windows are 1, 0, 1, …: the one before this is closed by this and turns the alarm.
            payload = msgspec.json.encode({"ts": second * 1000, "values": {"command_probe": value}})
            if not first:  # the first closes nothing; each other is answered by exactly one command
                sent.append(time.perf_counter())
            first = False
            await client.publish(f"devices/{device}/telemetry", payload, qos=1, timeout=math.inf)
            second, value = second + round(COMMAND_INTERVAL), 1 - value
            await asyncio.sleep(COMMAND_INTERVAL)

    async def _obey(self, device: str, client: aiomqtt.Client, sent: deque[float], latencies: Latencies) -> None:
        async for message in client.messages:
            if sent:
                latencies.seconds.append(time.perf_counter() - sent.popleft())
            message_id = str(message.topic).rsplit("/", 1)[-1]
            answer = msgspec.json.encode({"result": 0, "message": "success", "ts": int(time.time())})
            await client.publish(f"devices/{device}/command/response/{message_id}", answer, qos=1, timeout=math.inf)


@contextlib.asynccontextmanager
async def running(*probes: RowProbes | CommandProbes):  # type: ignore[no-untyped-def]
    """Run probes for the time of a block; what ends one of them ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(probe.run()) for probe in probes]
        yield
        for task in tasks:
            task.cancel()

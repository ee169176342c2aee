"""One simulated device on a real MQTT connection of its own, for ever."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from dataclasses import dataclass, field
from random import Random
from time import monotonic, time
from typing import Protocol

import aiomqtt

from tpstream.errors import TpstreamError
from tpstream.simulator.backoff import backoff
from tpstream.simulator.greenhouse import Greenhouse
from tpstream.simulator.sensors import Sensor, answer

QUIET = logging.getLogger("tpstream.simulator.mqtt")
"""What the MQTT library has to say of a lost connection; the watcher hears of it anyway."""
QUIET.setLevel(logging.CRITICAL)
KEEPALIVE = 20
"""Seconds; a connection that is silent for half as long again is given up by either side."""


class Watcher(Protocol):
    """Hears what becomes of a device."""

    def connected(self, device: str) -> None: ...
    def lost(self, device: str, why: str) -> None: ...
    def switched(self, device: str, on: bool) -> None: ...


@dataclass(slots=True)
class Device:
    """A greenhouse with a sensor and a fan. Times are read here and only here."""

    number: str
    sensor: Sensor
    greenhouse: Greenhouse
    interval: float
    """Seconds between two readings."""
    random: Random
    watcher: Watcher
    kept: deque[bytes] = field(init=False)
    """Readings not yet acknowledged."""
    news: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.kept = deque(maxlen=self.sensor.backlog)

    async def run(self, host: str, port: int) -> None:
        """Measure, connect, publish and obey until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._measure())
            group.create_task(self._stay_connected(host, port))

    async def _measure(self) -> None:
        await asyncio.sleep(self.random.uniform(0, self.interval))  # not all in the same instant
        while True:
            self.greenhouse.advance(monotonic())
            self.kept.append(self.sensor.say(self.greenhouse.read(), int(time() * 1000)))
            self.news.set()
            await asyncio.sleep(self.interval)

    async def _stay_connected(self, host: str, port: int) -> None:
        waits = backoff(self.random)
        while True:
            started = monotonic()
            try:
                await self._session(host, port)
            except* aiomqtt.MqttError as errors:
                self.watcher.lost(self.number, str(first(errors)))
            if monotonic() - started > 60:  # it held for a while: begin with short waits again
                waits = backoff(self.random)
            await asyncio.sleep(next(waits))

    async def _session(self, host: str, port: int) -> None:
        client = aiomqtt.Client(
            host,
            port,
            username=self.number,
            identifier=f"{self.number}-{self.random.getrandbits(32):08x}",
            keepalive=KEEPALIVE,
            timeout=10,
            logger=QUIET,
        )
        async with client:
            await client.subscribe(f"devices/command/{self.number}/+", qos=1)
            self.watcher.connected(self.number)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._publish(client))
                group.create_task(self._obey(client))

    async def _publish(self, client: aiomqtt.Client) -> None:
        topic = f"devices/{self.number}/telemetry"
        while True:
            while self.kept:
                payload = self.kept[0]
                await client.publish(topic, payload, qos=1, timeout=math.inf)
                if self.kept and self.kept[0] is payload:  # else it fell out of a full backlog meanwhile
                    self.kept.popleft()
            self.news.clear()
            await self.news.wait()

    async def _obey(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            message_id = str(message.topic).rsplit("/", 1)[-1]
            reply = self.obey(bytes(message.payload), int(time() * 1000))  # type: ignore[arg-type]
            topic = f"devices/{self.number}/command/response/{message_id}"
            await client.publish(topic, reply, qos=1, timeout=math.inf)

    def obey(self, payload: bytes, now: int) -> bytes:
        """Carry out a command and say how it went. Carrying one out twice does no harm."""
        try:
            order = self.sensor.understand(payload)
        except TpstreamError as error:
            return answer(now, error)
        if order.on != self.greenhouse.fan:
            self.watcher.switched(self.number, order.on)
        self.greenhouse.advance(monotonic())
        self.greenhouse.switch(order.on)
        return answer(now)


def first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first plain error in a group of errors and groups."""
    error = errors.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error

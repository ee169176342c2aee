"""Publish messages over MQTT in their order, at most 20 in flight, as fast or slow as they happened."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from time import monotonic

import aiomqtt

from tpstream.errors import Unavailable
from tpstream.simulator.backoff import backoff
from tpstream.simulator.csv_messages import Message
from tpstream.simulator.device import KEEPALIVE, QUIET, first

IN_FLIGHT = 20
"""Publishes without their PUBACK, as many as the endpoint reads from one connection (docs/bridge.md)."""

AT_ONCE = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
"""Else the kernel holds the second of several publishes until the first is acknowledged, which takes up to 40 ms
(measured: 450 instead of 950 messages a second)."""


def seconds_until(ts: int, first_ts: int, speed: float | None, elapsed: float) -> float:
    """How long to wait before a message of time `ts` (ms) goes out, `elapsed` seconds after the first.

    `speed`: how many times as fast as it happened; None: no waiting. Never negative.
    """
    if speed is None:
        return 0.0
    return max(0.0, (ts - first_ts) / 1000 / speed - elapsed)


@dataclass(slots=True)
class Replay:
    """One run over one connection; after a lost connection it goes on with what is unacknowledged."""

    messages: Iterator[Message]
    host: str
    port: int
    speed: float | None = None
    login: str | None = None
    """User name to connect with: the device's number where all messages are one device's."""
    acknowledged: Callable[[Message], None] = lambda message: None
    say: Callable[[str], None] = print
    random: Random = field(default_factory=Random)
    _waiting: dict[int, Message] = field(default_factory=dict)
    """In flight, in order."""
    _next: int = 0
    _first_ts: int | None = None
    _started: float = 0.0

    async def run(self) -> None:
        """Return when every message is acknowledged.

        Raises Unavailable if there is nobody at first; later it tries again for ever.
        """
        waits, connected, away = backoff(self.random), False, False
        while True:
            client = aiomqtt.Client(
                self.host,
                self.port,
                username=self.login,
                keepalive=KEEPALIVE,
                timeout=10,
                logger=QUIET,
                socket_options=(AT_ONCE,),
            )
            try:
                async with client:
                    if away:
                        self.say(f"connected again to MQTT at {self.host}:{self.port}")
                    connected, away, waits = True, False, backoff(self.random)
                    return await self._session(client)
            except aiomqtt.MqttError as error:
                if not connected:
                    raise Unavailable(
                        f"no MQTT at {self.host}:{self.port} ({error}); is `tpstream up` running there?"
                    ) from None
                if not away:
                    self.say(f"lost MQTT at {self.host}:{self.port} ({error}); trying again until it is back")
                away = True
            await asyncio.sleep(next(waits))

    async def _session(self, client: aiomqtt.Client) -> None:
        """Raises MqttError when the connection is lost, and whatever reading the messages raises."""
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(_until_lost(client))
                await self._publish_all(client)
                watch.cancel()
        except BaseExceptionGroup as errors:
            raise first(errors) from None

    async def _publish_all(self, client: aiomqtt.Client) -> None:
        room = asyncio.Semaphore(IN_FLIGHT)
        async with asyncio.TaskGroup() as group:  # its tasks begin in the order in which they are made
            for number, message in list(self._waiting.items()):
                await room.acquire()
                group.create_task(self._publish(client, number, message, room))
            for message in self.messages:
                number, self._next = self._next, self._next + 1
                self._waiting[number] = message  # from here on it is ours, whatever happens
                await self._keep_pace(message.ts)
                await room.acquire()
                group.create_task(self._publish(client, number, message, room))

    async def _publish(self, client: aiomqtt.Client, number: int, message: Message, room: asyncio.Semaphore) -> None:
        await client.publish(f"devices/{message.device}/telemetry", message.payload, qos=1, timeout=math.inf)
        del self._waiting[number]
        room.release()
        self.acknowledged(message)

    async def _keep_pace(self, ts: int) -> None:
        if self._first_ts is None:
            self._first_ts, self._started = ts, monotonic()
        wait = seconds_until(ts, self._first_ts, self.speed, monotonic() - self._started)
        if wait > 0:
            await asyncio.sleep(wait)


async def _until_lost(client: aiomqtt.Client) -> None:
    async for _ in client.messages:  # nothing is subscribed to: this ends with the connection
        pass

"""Windows over a user's topic on a broker: over a restart, each once, the last one by the owner's ticks."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from parts.kafka import Kafka
from parts.lane import publish, running, stored

from tpstream.app import App
from tpstream.bus import topics
from tpstream.bus.provision import provision
from tpstream.messages import WindowResult
from tpstream.settings import Settings

pytestmark = pytest.mark.kafka


class Reading(msgspec.Struct):
    ts: int
    temperature: float


def record(device: str, ts: int, temperature: float) -> tuple[str, bytes, int]:
    return device, msgspec.json.encode(Reading(ts, temperature)), ts


async def results(settings: Settings, count: int) -> list[WindowResult]:
    """What is in tp.windows.v1, once that many are."""
    async with asyncio.timeout(40):
        while True:
            found = await stored(settings, topics.windows.name)
            if len(found) >= count:
                return [topics.windows.decode(record.value) for record in found]
            await asyncio.sleep(0.2)


async def test_each_window_once_over_a_restart_and_the_last_by_a_tick(fresh_kafka: Kafka) -> None:
    settings = fresh_kafka.settings()
    app = App()
    plant = app.topic("plant.readings.v1", Reading, ticks=True)
    app.window("mean", topic=plant, key="temperature", time="ts", size="1s", idle="2s")
    devices = [f"oven-{n}" for n in range(20)]
    start = (int(time.time()) - 60) * 1000  # a minute ago: by now everything is due
    steps = [start + n * 250 for n in range(40)]
    first = [record(device, ts, float(n)) for n, ts in enumerate(steps[:22]) for device in devices]
    second = [record(device, ts, float(n)) for n, ts in enumerate(steps) if n >= 22 for device in devices]
    # Ticks are of now: none may come in between and close what the second half goes on with.
    await provision(settings, users=(plant,), wait=20)
    async with running(settings, "plant", app):
        await publish(settings, plant.name, first)
        await results(settings, 5 * 20)
    await publish(settings, plant.name, second)
    async with running(settings, "plant", app, ticks=True):
        found = await results(settings, 10 * 20)
    expected = {(d, start + n * 1000): (4, n * 4 + 1.5) for d in devices for n in range(10)}
    assert {(r.device, r.start): (r.count, r.value) for r in found} == expected
    assert len(found) == len(expected)

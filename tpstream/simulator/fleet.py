"""A fleet of greenhouses: of three sensors two speak JSON and one sends six bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from time import monotonic

from tpstream.simulator.device import Device, Watcher
from tpstream.simulator.greenhouse import Greenhouse
from tpstream.simulator.sensors import BinarySensor, JsonSensor, Sensor


def numbers(devices: int, prefix: str = "greenhouse") -> list[tuple[str, type[Sensor]]]:
    """Device numbers and their kind: every third is binary, the others speak JSON.

    greenhouse-1, greenhouse-2, greenhouse-bin-1, greenhouse-3, greenhouse-4, greenhouse-bin-2, …
    """
    named: list[tuple[str, type[Sensor]]] = []
    for n in range(devices):
        binary = n // 3 + 1
        if n % 3 == 2:
            named.append((f"{prefix}-bin-{binary}", BinarySensor))
        else:
            named.append((f"{prefix}-{n + 2 - binary}", JsonSensor))
    return named


class Report:
    """Says in one line what changed for the fleet as a whole, and says it once."""

    def __init__(self, devices: int, address: str, say: Callable[[str], None]) -> None:
        self.devices = devices
        self.address = address
        self.say = say
        self.online: set[str] = set()
        self.away = False

    def connected(self, device: str) -> None:
        """A device is connected; the last of the fleet makes it complete."""
        self.online.add(device)
        if len(self.online) == self.devices:
            self.away = False
            self.say(f"{self.devices} simulated devices connected to MQTT at {self.address}")

    def lost(self, device: str, why: str) -> None:
        """A device lost its connection, or did not get one."""
        self.online.discard(device)
        if not self.away:
            self.away = True
            self.say(f"no connection to MQTT at {self.address} ({why}); trying again until there is one")

    def switched(self, device: str, on: bool) -> None:
        """A fan was turned on or off by a command."""
        self.say(f"{device}: fan {'on' if on else 'off'}")


async def simulate(
    host: str,
    port: int,
    *,
    devices: int = 6,
    interval: float = 1.0,
    prefix: str = "greenhouse",
    seed: int | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Run a fleet against an MQTT endpoint or broker until cancelled. `interval` in seconds."""
    report = Report(devices, f"{host}:{port}", say)
    chance = Random(seed)
    async with asyncio.TaskGroup() as group:
        for number, kind in numbers(devices, prefix):
            device = make(number, kind, interval, Random(chance.getrandbits(64)), report)
            group.create_task(device.run(host, port), name=number)


def make(number: str, kind: type[Sensor], interval: float, random: Random, watcher: Watcher) -> Device:
    """A device whose greenhouse begins somewhere between cool and warm, so that they do not move as one."""
    greenhouse = Greenhouse(monotonic(), random, temperature=random.uniform(25.0, 29.5))
    return Device(number, kind(), greenhouse, interval, random, watcher)

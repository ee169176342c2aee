"""A greenhouse: the sun heats it, the fan cools it. No clock, no chance of its own: both are given.

Newton's law of cooling, in closed form, so that the step's length does not change the result:
the temperature goes exponentially towards what it would become if all stayed as it is.
Without the fan that is about 36 °C, with it about 22 °C; the time constants are those of a very
small greenhouse, so that from 30 °C up and back below 28 °C takes about one and a half minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random

OUTSIDE = 20.0
"""Temperature of the air that the fan brings in, °C."""
SUN_HEATS = 16.0
"""What a clear sky adds in the end, K: closed, and with the fan running an eighth of it."""
FAN_LEAVES = 1 / 8
CLOSED_SECONDS = 40.0
"""Time constant with the fan off, s."""
FAN_SECONDS = 25.0
"""Time constant with the fan on, s."""
CLOUD_SECONDS = 30.0
"""How long a cloud stays, s."""
BATTERY_FULL = 4.2
BATTERY_EMPTY = 3.0
BATTERY_VOLTS_PER_SECOND = 0.05 / 3600


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sensor shows. °C, percent, V."""

    temperature: float
    humidity: float
    battery: float
    fan: bool


@dataclass(slots=True)
class Greenhouse:
    """The state of one greenhouse at `at` (seconds, any clock that only goes forward)."""

    at: float
    random: Random
    temperature: float = 27.0
    sun: float = 1.0
    """Share of the clear sky's light, 0.8 to 1."""
    fan: bool = False
    battery: float = BATTERY_FULL
    noise: float = field(default=0.05, kw_only=True)
    """Standard deviation of the thermometer, K."""

    def advance(self, now: float) -> None:
        """Let the time pass until `now`; a time before `at` changes nothing."""
        seconds = now - self.at
        if seconds <= 0:
            return
        self.at = now
        change = math.sqrt(1 - math.exp(-2 * seconds / CLOUD_SECONDS))
        self.sun = min(1.0, max(0.8, self.sun + 0.1 * change * self.random.gauss(0, 1)))
        goal = OUTSIDE + SUN_HEATS * self.sun * (FAN_LEAVES if self.fan else 1)
        constant = FAN_SECONDS if self.fan else CLOSED_SECONDS
        self.temperature = goal + (self.temperature - goal) * math.exp(-seconds / constant)
        self.battery -= seconds * BATTERY_VOLTS_PER_SECOND
        if self.battery < BATTERY_EMPTY:
            self.battery = BATTERY_FULL  # somebody changed it

    def switch(self, on: bool) -> None:
        """Turn the fan on or off; it stays so."""
        self.fan = on

    def read(self) -> Reading:
        """What the sensor shows now, with its noise; warm air is relatively drier."""
        temperature = self.temperature + self.random.gauss(0, self.noise)
        humidity = 60 - 1.5 * (self.temperature - 25) + self.random.gauss(0, 0.2)
        return Reading(
            round(temperature, 2), round(min(100.0, max(0.0, humidity)), 2), round(self.battery, 3), self.fan
        )

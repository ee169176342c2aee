"""The stream that a campaign publishes: message n says always the same, so what must come of it can be computed.

Devices `numbers-…` and `heat-…` take turns, each every 100 ms; their times are shuffled within the lateness
that the windows allow, so nothing is late. Every thousandth message is a quiet device's: three points at
once, and never a word again, so that only the partition's clock closes its windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

EVERY_MS = 100
"""Between two messages of a device, ms: `rate` is ten messages a second and device."""

SHUFFLE = (0, 250, 30, 310)
"""ms by which a device's messages are dated back in turn: no two get one time, and some overtake others."""

HEAT_EVERY = 20
"""Of so many devices one is hot."""

QUIET_EVERY = 1_000
"""Of so many messages one is a quiet device's."""

HEAT_MS = 4_000
"""How long a hot device says 0, then 100."""


class Point(NamedTuple):
    """What `telemetry` must show: the identity of a point, and its number."""

    device: str
    key: str
    ts: int
    number: float


class Message(NamedTuple):
    """A publish: whose, what, and the earliest time (ms) at which it may be delivered."""

    device: str
    payload: bytes
    due: int


class Window(NamedTuple):
    """A window's definition, as the oracle has it. `idle`: closed by silence, too. Times in ms."""

    name: str
    key: str
    size: int
    mean: bool
    lateness: int
    idle: bool


WINDOWS = (
    Window("numbers", "n", 5_000, False, 2_000, False),
    Window("heat", "t", 2_000, True, 2_000, False),
    Window("quiet", "q", 5_000, False, 0, True),
)
"""As in application/campaign_windows."""

RULE_WINDOW, RAISE_ABOVE, CLEAR_BELOW = "heat", 50.0, 10.0
"""As in application/rules/hot.yaml."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which messages: message 0 is due at `base` (ms since 1970, a multiple of HEAT_MS), `rate` of them a second
    (a multiple of 200)."""

    base: int
    rate: int = 2_000

    @property
    def devices(self) -> int:
        """Devices that speak all the time."""
        return self.rate * EVERY_MS // 1_000

    def due(self, n: int) -> int:
        """When message n is published, ms."""
        return self.base + n * 1_000 // self.rate

    def points(self, n: int) -> tuple[Point, ...]:
        """The points of message n."""
        due = self.due(n)
        if n % QUIET_EVERY == 7:
            device = f"quiet-{n}"
            return tuple(Point(device, "q", due + i, float(n)) for i in range(3))
        turn, place = divmod(n, self.devices)
        ts = due - SHUFFLE[turn % len(SHUFFLE)]
        if place % HEAT_EVERY == HEAT_EVERY - 1:
            hot = ts >= self.base and (ts - self.base) // HEAT_MS % 2 == 1
            device = f"heat-{place}"
            return Point(device, "n", ts, float(n)), Point(device, "t", ts, 100.0 if hot else 0.0)
        return (Point(f"numbers-{place}", "n", ts, float(n)),)

    def message(self, n: int) -> Message:
        """Message n as its device sends it."""
        points = self.points(n)
        parts = []
        for ts in dict.fromkeys(point.ts for point in points):
            values = ",".join(f'"{p.key}":{p.number:.0f}' for p in points if p.ts == ts)
            parts.append(f'{{"ts":{ts},"values":{{{values}}}}}')
        text = parts[0] if len(parts) == 1 else f"[{','.join(parts)}]"
        return Message(points[0].device, text.encode(), max(self.due(n), points[-1].ts))

    def slices(self, count: int) -> Iterator[tuple[str, list[Point]]]:
        """What the first `count` messages say, device by device (all quiet ones as `quiet-`): prefix and points."""
        quiet: list[Point] = []
        for n in range(7, count, QUIET_EVERY):
            quiet += self.points(n)
        yield "quiet-", quiet
        for place in range(min(self.devices, count)):
            points = [
                p for n in range(place, count, self.devices) if n % QUIET_EVERY != 7 for p in self.points(n)
            ]  # fmt: skip
            if points:
                yield points[0].device, points

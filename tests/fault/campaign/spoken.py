"""What the devices of a campaign say by MQTT: message n says always the same. Keys of their own, of no window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fault.campaign.stream import EVERY_MS, Point

PREFIX, KEY = "mqtt-", "m"


@dataclass(frozen=True, slots=True)
class Spoken:
    """Message 0 is due at `base` (ms since 1970), `rate` of them a second; `devices` take turns, each every 100 ms."""

    base: int
    rate: int = 200

    @property
    def devices(self) -> int:
        """Devices that speak."""
        return self.rate * EVERY_MS // 1_000

    def due(self, n: int) -> int:
        """When message n is published, ms; its point's time, as its device says it."""
        return self.base + n * 1_000 // self.rate

    def point(self, n: int) -> Point:
        """The point of message n."""
        return Point(f"{PREFIX}{n % self.devices}", KEY, self.due(n), float(n))

    def payload(self, n: int) -> bytes:
        """Message n as its device sends it; `number` reads it."""
        return f'{{"ts":{self.due(n)},"values":{{"{KEY}":{n}}}}}'.encode()

    def slices(self, count: int) -> Iterator[tuple[str, list[Point]]]:
        """What the first `count` messages say, device by device."""
        for place in range(min(self.devices, count)):
            yield f"{PREFIX}{place}", [self.point(n) for n in range(place, count, self.devices)]


def number(payload: bytes) -> int:
    """Which message a payload is."""
    return int(payload[payload.rindex(b":") + 1 : -2])

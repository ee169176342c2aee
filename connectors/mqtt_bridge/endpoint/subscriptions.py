"""Who may listen to what, and what a session listens to. Pure."""

from __future__ import annotations

from connectors.mqtt_bridge.endpoint.reasons import Reason
from tpstream.uplink.dialects import device_of_filter

MAX_FILTERS = 1_000
"""Filters of one session."""


class Subscriptions:
    """The filters of one session, all within downlink topics that it may hear.

    With a login only its own; without one (`anonymous`, where topics are trusted) those of
    any number that the filter names.
    """

    def __init__(self, login: str | None, *, anonymous: bool) -> None:
        self._login = login
        self._anonymous = anonymous
        self._filters: dict[str, tuple[int, str]] = {}
        self._devices: dict[str, int] = {}

    def add(self, wanted: str, qos: int) -> tuple[Reason | None, str]:
        """Subscribe. The reason against it, if any, and the device if it is the first filter of it."""
        if not wanted or not _well_formed(wanted):
            return Reason.FILTER_INVALID, ""
        if wanted.startswith("$share/"):
            return Reason.SHARED_NOT_SUPPORTED, ""
        device = device_of_filter(wanted)
        allowed = device is not None and (self._anonymous or device == self._login)
        if device is None or not allowed or (len(self._filters) >= MAX_FILTERS and wanted not in self._filters):
            return Reason.NOT_AUTHORIZED, ""
        first = device not in self._devices
        if wanted not in self._filters:
            self._devices[device] = self._devices.get(device, 0) + 1
        self._filters[wanted] = (qos, device)
        return None, device if first else ""

    def remove(self, filter: str) -> bool:
        """Unsubscribe; whether it was subscribed."""
        found = self._filters.pop(filter, None)
        if found is None:
            return False
        self._devices[found[1]] -= 1
        return True

    def silent(self) -> list[str]:
        """Devices whose last filter is gone; they are forgotten."""
        devices = [device for device, count in self._devices.items() if not count]
        for device in devices:
            del self._devices[device]
        return devices

    def qos(self, topic: str) -> int | None:
        """The highest QoS of the filters that match a topic; None: none does."""
        found = [qos for filter, (qos, _) in self._filters.items() if filter == topic or matches(filter, topic)]
        return max(found) if found else None

    @property
    def devices(self) -> list[str]:
        """Devices that are listened to."""
        return list(self._devices)


def matches(filter: str, topic: str) -> bool:
    """Whether a filter matches a topic (MQTT 5, 4.7)."""
    wanted, given = filter.split("/"), topic.split("/")
    for place, segment in enumerate(wanted):
        if segment == "#":
            return True
        if place >= len(given) or segment not in ("+", given[place]):
            return False
    return len(wanted) == len(given)


def _well_formed(filter: str) -> bool:
    segments = filter.split("/")
    last = len(segments) - 1
    return all(
        segment in ("+", "#") and (segment == "+" or place == last)
        if "+" in segment or "#" in segment
        else "\0" not in segment
        for place, segment in enumerate(segments)
    )

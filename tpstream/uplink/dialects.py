"""Dialect `native`: which topic says what, of which device (docs/protocol.md).

Every uplink topic carries the device's number after its first segment; downlink topics
carry it last but for the message id. All functions are pure and safe on any text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

MAX_NUMBER_BYTES = 128
_RESERVED = frozenset({"telemetry", "attributes", "event", "status", "command"})
_FORBIDDEN = frozenset("/+#\0")


class What(StrEnum):
    """What an uplink topic carries."""

    TELEMETRY = "telemetry"
    ATTRIBUTES = "attributes"
    EVENT = "event"
    STATUS = "status"
    """`devices/status/{number}`: a broker's or a plug-in's word; never a device's own."""
    COMMAND_RESPONSE = "command_response"
    ATTRIBUTES_SET_RESPONSE = "attributes_set_response"


@dataclass(frozen=True, slots=True)
class Address:
    """What an uplink topic names. `gateway`: the payload is wrapped."""

    device: str
    what: What
    message_id: str = ""
    """Empty where the topic has none: stored, unanswered."""
    gateway: bool = False


_UPLINK: dict[tuple[str, ...], What] = {
    ("telemetry",): What.TELEMETRY,
    ("attributes",): What.ATTRIBUTES,
    ("event",): What.EVENT,
    ("command", "response"): What.COMMAND_RESPONSE,
    ("attributes", "set", "response"): What.ATTRIBUTES_SET_RESPONSE,
}
"""The segments between the device's number and the message id."""

_WITHOUT_ID = frozenset({What.TELEMETRY})

_DOWNLINK: tuple[tuple[str, str], ...] = tuple(
    (f"{root}/{path}/", tail)
    for root in ("devices", "gateway")
    for path, tail in (
        ("command", "/+"),
        ("attributes/set", "/+"),
        ("attributes/get", ""),
        ("telemetry/control", ""),
        ("attributes/response", "/+"),
        ("event/response", "/+"),
    )
)
"""What stands before the number in a downlink topic, and what a filter has behind it."""


def valid_number(device: str) -> bool:
    """Whether a text can be a device number (docs/protocol.md, Identity)."""
    if not device or device[0] == "$" or device in _RESERVED or not _FORBIDDEN.isdisjoint(device):
        return False
    try:
        return len(device.encode()) <= MAX_NUMBER_BYTES
    except UnicodeEncodeError:  # a lone surrogate is no UTF-8
        return False


def address(topic: str) -> Address | None:
    """What an uplink topic names, or None where the dialect does not know it."""
    root, *rest = topic.split("/")
    if root not in ("devices", "gateway") or len(rest) < 2:
        return None
    gateway = root == "gateway"
    if rest[0] == What.STATUS and len(rest) == 2 and not gateway:
        return Address(rest[1], What.STATUS) if valid_number(rest[1]) else None
    device, *path = rest
    if not valid_number(device):
        return None
    whole = _UPLINK.get(tuple(path))
    if whole is not None:
        return Address(device, whole, "", gateway)
    what = _UPLINK.get(tuple(path[:-1]))
    if what is None or what in _WITHOUT_ID:
        return None
    return Address(device, what, path[-1], gateway)


def downlink_filters(device: str) -> tuple[str, ...]:
    """The MQTT filters that cover everything ever sent down to a device."""
    return tuple(f"{head}{device}{tail}" for head, tail in _DOWNLINK)


@lru_cache(maxsize=100_000)
def device_of_filter(filter: str) -> str | None:
    """The number that a downlink filter names, or None where it names none, or more than one's own topics."""
    for head, tail in _DOWNLINK:
        if filter.startswith(head):
            device, *behind = filter[len(head) :].split("/")
            return device if valid_number(device) and _within(behind, bool(tail)) else None
    return None


def may_subscribe(filter: str, device: str) -> bool:
    """Whether a filter matches nothing but this device's own downlink topics."""
    return device_of_filter(filter) == device


def _within(behind: list[str], has_id: bool) -> bool:
    """Whether the segments behind the number are a filter within the topics that have it."""
    if not behind:
        return True
    if len(behind) > 1:
        return False
    segment = behind[0]
    if segment == "#":
        return True
    return has_id and (segment == "+" or _FORBIDDEN.isdisjoint(segment))

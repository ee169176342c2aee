"""What a session wants done by the shell around it."""

from __future__ import annotations

from typing import NamedTuple

from connectors.mqtt_bridge.downlink import Receipt
from connectors.mqtt_bridge.endpoint.packets import Connect
from connectors.mqtt_bridge.publish import Publish


class Arrived(NamedTuple):
    """Somebody has sent CONNECT; answer with `Session.accept` or `Session.refuse`."""

    connect: Connect


class Listens(NamedTuple):
    """The session subscribed to downlink topics of a device that it had not listened to."""

    device: str


class Deafened(NamedTuple):
    """The session listens to nothing of this device any more."""

    device: str


class Dropped(NamedTuple):
    """A publish of QoS 0 was dropped, as the bound over all connections is reached."""

    publish: Publish


class Closed(NamedTuple):
    """Write what is left, then close the connection."""

    reason: str
    """One of few words, for records and metrics."""
    detail: str = ""
    """What was wrong, for a person."""


Effect = Publish | Arrived | Listens | Deafened | Dropped | Receipt | Closed
"""A `Publish` itself says: it is let in, take it to Kafka."""

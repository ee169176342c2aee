"""What the records on the topics say, as typed structs.

On the wire each is JSON with these names (docs/decisions/0002 has the measurement); the
Avro schemas in `schemas/` describe the same records and are checked against these classes.
Times are integer milliseconds since 1970, UTC.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

ValueKind = Literal["number", "bool", "text", "json"]
TimeFrom = Literal["device", "delivery"]


class Point(msgspec.Struct, omit_defaults=True, gc=False, frozen=True):
    """One value of one key at one time."""

    key: str
    ts: int
    number: float | None = None
    """The value as a double where kind is number or bool, else None."""
    text: str = ""
    """The value's text where kind is text or json; the digits of integers beyond 2^53."""
    kind: ValueKind = "number"
    ts_from: TimeFrom = "device"


class Telemetry(msgspec.Struct, gc=False, frozen=True):
    """tp.uplink.telemetry.v1: the points of one source message; timestamp: its delivery."""

    device: str
    points: tuple[Point, ...]


class Response(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.uplink.response.v1: what a device said of a command, or (receipt) its PUBACK of it."""

    device: str
    message_id: str
    what: Literal["response", "receipt", "sent"] = "response"
    """`sent`: the broker's PUBACK or the write to a QoS 0 subscriber; `receipt`: the device's PUBACK."""
    result: int = 0
    """0 success, 1 refused; anything else the device says counts as refused."""
    text: str = ""
    """The device's answer as JSON text."""
    ts: int = 0


class DeviceStatus(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.device.status.v1: a change of a device's online status."""

    device: str
    online: bool
    ts: int
    reason: str = ""


class WindowResult(msgspec.Struct, frozen=True):
    """tp.windows.v1: one closed window; identity: window, device, key, start."""

    window: str
    device: str
    key: str
    start: int
    end: int
    aggregate: str
    value: float | None
    count: int
    closed_at: int
    """The partition's clock when it closed."""


class LatePoint(msgspec.Struct, frozen=True):
    """tp.late.v1: a point that came too late for a window, or is older than the retention."""

    device: str
    key: str
    ts: int
    reason: Literal["window", "retention"]
    number: float | None = None
    text: str = ""
    window: str = ""


class AlarmState(StrEnum):
    """The life of an alarm."""

    ACTIVE = "active"
    CLEARED = "cleared"


class Alarm(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.alarms.v1: the present state of an alarm; a higher version replaces a lower."""

    id: str
    rule: str
    device: str
    severity: str
    state: AlarmState
    started_at: int
    version: int
    ended_at: int | None = None
    acknowledged_at: int | None = None
    value: float | None = None
    details: str = ""
    """JSON text."""


class CommandRequest(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.downlink.command.v1: somebody wants a device to do something."""

    id: str
    device: str
    method: str
    created_at: int
    params: str = ""
    """JSON text; empty: none."""
    source: str = ""
    """Who asked: `api`, `cli`, `rule:NAME`, …"""
    timeout: float | None = None
    """Seconds to wait for the answer; None: TPSTREAM_COMMAND_TIMEOUT."""
    attempts: int | None = None
    """Times it may be sent; None: TPSTREAM_COMMAND_ATTEMPTS."""
    expires_at: int | None = None


class CommandState(StrEnum):
    """The life of a command (docs/downlink.md)."""

    QUEUED = "QUEUED"
    ENCODED = "ENCODED"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    SUCCEEDED = "SUCCEEDED"
    REFUSED = "REFUSED"
    TIMED_OUT = "TIMED_OUT"
    EXPIRED = "EXPIRED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class CommandStatus(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.command.status.v1: the present state of a command; a higher version replaces a lower."""

    id: str
    device: str
    method: str
    state: CommandState
    created_at: int
    updated_at: int
    version: int
    params: str = ""
    attempts: int = 0
    result: str = ""
    """The device's answer, or why the command ended, as JSON text."""
    source: str = ""


class DeadLetter(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.dlq.v1: a message that could not be handled, whole, with the reason."""

    id: str
    ts: int
    device: str
    stage: str
    """The agent or part that gave up: `bridge`, `decode`, `windows`, …"""
    reason: str
    """One of the words under "Dead letters" in docs/protocol.md."""
    topic: str = ""
    """The MQTT topic, or the Kafka topic where the record was no device's message."""
    payload: bytes = b""
    """The original bytes (base64 in JSON)."""
    detail: str = ""
    """One line for a person: what was wrong, where."""
    headers: tuple[tuple[str, bytes], ...] = ()
    attempts: int = 1
    source_life: str = ""
    source_partition: int = -1
    source_offset: int = -1
    source_index: int = 0


class LifeRecord(msgspec.Struct, frozen=True):
    """tp.life.v1: a life of the topics begins."""

    id: str
    """A UUID, 32 hex digits."""
    created_at: int
    partitions: int


class Release(msgspec.Struct, omit_defaults=True, frozen=True):
    """tp.config.releases.v1: what one application has in force; replaced whole by each `apply`.

    The maps go from a name to the version (content hash) in the topics of documents, where
    every version stays as long as the raw topic, so that a replay uses what was in force.
    """

    app: str
    version: str
    created_at: int
    profiles: dict[str, str] = {}
    scripts: dict[str, str] = {}
    rules: dict[str, str] = {}


class Document(msgspec.Struct, frozen=True):
    """tp.config.profiles.v1, …scripts.v1, …rules.v1: one version of one document (key: name@version)."""

    name: str
    version: str
    text: str
    """The YAML or Lua as it was written."""
    file: str


class Device(msgspec.Struct, omit_defaults=True, frozen=True, gc=False):
    """tp.config.devices.v1: one registered device."""

    device: str
    profile: str = ""
    """Empty: the profile whose `devices` pattern matches, else the default (plain JSON)."""
    tenant: str = "default"
    created_at: int = 0
    first_seen: bool = False
    """Registered on first sight, not by a person."""

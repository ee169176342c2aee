"""The topics, declared once each: name, record type, partitions, and how long records stay."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_origin

import msgspec

from tpstream import messages
from tpstream.errors import ConfigurationError, TpstreamError

V = TypeVar("V")

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class Topic(Generic[V]):
    """A Kafka topic. `by_device`: spread by key, over TPSTREAM_PARTITIONS or `partitions`; else one partition."""

    name: str
    type: type[V]
    by_device: bool = True
    compact: bool = False
    decoder: Any = None
    """Of the values' JSON; None: they are bytes, as they are."""
    accepts: Any = object
    """What a value to be sent is an instance of."""
    partitions: int | None = None
    """None: TPSTREAM_PARTITIONS."""
    ticks: bool = False
    """Of a user's topic: whether time that passes in silence may be a record in it, without a key or value."""

    def encode(self, value: V) -> bytes:
        """The record's value as JSON bytes (raw bytes for a topic of bytes)."""
        return value if isinstance(value, bytes) else _encode(value)

    def decode(self, data: bytes) -> V:
        """A record's value; TpstreamError names the topic and the field that is wrong."""
        if self.decoder is None:
            return data  # type: ignore[return-value]
        try:
            return self.decoder.decode(data)  # type: ignore[no-any-return]
        except msgspec.DecodeError as error:
            raise TpstreamError(f"{self.name}: {error}") from None


_all: dict[str, Topic[Any]] = {}


def _topic(name: str, kind: type[V], *, by_device: bool = True, compact: bool = False) -> Topic[V]:
    decoder = None if kind is bytes else msgspec.json.Decoder(kind)
    topic = Topic(name, kind, by_device, compact, decoder, kind)
    _all[name] = topic
    return topic


uplink_raw = _topic("tp.uplink.raw.v1", bytes)
uplink_telemetry = _topic("tp.uplink.telemetry.v1", messages.Telemetry)
uplink_response = _topic("tp.uplink.response.v1", messages.Response)
device_status = _topic("tp.device.status.v1", messages.DeviceStatus)
windows = _topic("tp.windows.v1", messages.WindowResult)
alarms = _topic("tp.alarms.v1", messages.Alarm)
downlink_command = _topic("tp.downlink.command.v1", messages.CommandRequest)
command_status = _topic("tp.command.status.v1", messages.CommandStatus)
downlink_mqtt = _topic("tp.downlink.mqtt.v1", bytes)
dead_letters = _topic("tp.dlq.v1", messages.DeadLetter)
late = _topic("tp.late.v1", messages.LatePoint)
life = _topic("tp.life.v1", messages.LifeRecord, by_device=False)
config_devices = _topic("tp.config.devices.v1", messages.Device, by_device=False, compact=True)
config_profiles = _topic("tp.config.profiles.v1", messages.Document, by_device=False, compact=True)
config_scripts = _topic("tp.config.scripts.v1", messages.Document, by_device=False, compact=True)
config_rules = _topic("tp.config.rules.v1", messages.Document, by_device=False, compact=True)
config_releases = _topic("tp.config.releases.v1", messages.Release, by_device=False, compact=True)


_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
_OWN = ("tp.", "tpstream-")


def is_own(name: str) -> bool:
    """Whether a topic of that name is tpstream's own, declared here or a changelog."""
    return name.startswith(_OWN)


def declare(
    name: str, kind: type[V], *, partitions: int | None = None, compact: bool = False, ticks: bool = False
) -> Topic[V]:
    """A topic of a user's own, of a msgspec Struct, a dict (`dict[str, float]`, say) or bytes.

    Raises ConfigurationError where the name, the type or the number of partitions will not do.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.strip("."):
        raise ConfigurationError(f"topic {name!r}: a name is up to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
    if name in _all:
        raise ConfigurationError(f"topic {name} is tpstream's own: take it from `tpstream.topics`")
    if is_own(name):
        raise ConfigurationError(f"topic {name}: names in {' and '.join(p + '*' for p in _OWN)} are tpstream's own")
    if partitions is not None and (type(partitions) is not int or partitions < 1):
        raise ConfigurationError(f"topic {name}: partitions={partitions!r} is no number from 1")
    if kind is bytes:
        return Topic(name, kind, True, compact, None, bytes, partitions, ticks)
    accepts = get_origin(kind) or kind
    if not isinstance(accepts, type) or not issubclass(accepts, msgspec.Struct | dict):
        raise ConfigurationError(f"topic {name}: its type is {kind!r}, and should be a msgspec.Struct, dict or bytes")
    try:
        decoder = msgspec.json.Decoder(kind)
    except TypeError as error:
        raise ConfigurationError(f"topic {name}: {kind!r} cannot be read from JSON: {error}") from None
    return Topic(name, kind, True, compact, decoder, accepts, partitions, ticks)


def all_topics() -> tuple[Topic[Any], ...]:
    """Every topic of tpstream, in the order in which they are created (the life's first)."""
    return (life, *(t for t in _all.values() if t is not life))


def by_name(name: str) -> Topic[Any]:
    """The declared topic of that name; KeyError if there is none."""
    return _all[name]


def names() -> frozenset[str]:
    """The names of all declared topics."""
    return frozenset(_all)

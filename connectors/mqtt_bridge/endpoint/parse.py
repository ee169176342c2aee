"""Packets from bytes: one function for each that a client may send. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from connectors.mqtt_bridge.endpoint import properties as p
from connectors.mqtt_bridge.endpoint.packets import (
    V5,
    V311,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Puback,
    Subscribe,
    Unsubscribe,
    Will,
)
from connectors.mqtt_bridge.endpoint.reasons import Reason, Violation
from connectors.mqtt_bridge.publish import Publish

MAX_PROPERTIES = 64 * 1024
"""Bytes of the properties of a publish; they become headers of a record, which is bounded too."""

_SHORT = 200
"""Topics up to this many bytes are remembered, so that the memory for them stays bounded."""


def publish(data: bytes, flags: int, at: int, end: int, version: int) -> Publish:
    """A PUBLISH whose variable header begins at `at`."""
    begin = at + 2
    stop = begin + (data[at] << 8 | data[at + 1]) if begin <= end else end + 1
    if stop > end:
        raise Violation(Reason.MALFORMED, "a topic is longer than its packet")
    raw = data[begin:stop]
    topic = _short_topic(raw) if len(raw) <= _SHORT else _topic(raw)
    qos = flags >> 1 & 3
    packet_id = 0
    if qos:
        if qos == 3:
            raise Violation(Reason.MALFORMED, "a publish of QoS 3")
        if qos == 2:
            raise Violation(Reason.QOS_NOT_SUPPORTED, "a publish of QoS 2")
        packet_id, stop = _packet_id(data, stop, end)
    elif flags & 8:
        raise Violation(Reason.MALFORMED, "DUP on a publish of QoS 0")
    content_type = ""
    users: tuple[tuple[str, str], ...] = ()
    if version == V5:
        if stop < end and data[stop] == 0:
            stop += 1
        else:
            found, after = p.read(data, stop, end, p.OF_PUBLISH)
            if after - stop > MAX_PROPERTIES:
                raise Violation(Reason.PACKET_TOO_LARGE, f"properties of {after - stop} bytes")
            stop = after
            if p.TOPIC_ALIAS in found:
                raise Violation(Reason.TOPIC_ALIAS_INVALID, "a topic alias, though none are offered")
            content_type = found.get(p.CONTENT_TYPE, "")
            users = tuple(found.get(p.USER, ()))
    if not topic:
        raise Violation(Reason.PROTOCOL_ERROR, "a publish without a topic")
    return Publish(topic, data[stop:end], qos, flags & 8 != 0, flags & 1 != 0, packet_id, content_type, users)


def _topic(raw: bytes) -> str:
    topic = p.utf8(raw)
    if "+" in topic or "#" in topic:
        raise Violation(Reason.TOPIC_INVALID, "a publish to a topic with a wildcard")
    return topic


_short_topic = lru_cache(maxsize=100_000)(_topic)


def parse(data: bytes, first: int, at: int, end: int, version: int) -> Packet:
    """Any packet; `first` is the first byte of its fixed header, `at` where its variable header begins."""
    kind, flags = first >> 4, first & 0x0F
    if kind == 3:
        return publish(data, flags, at, end, version)
    parser = _PARSERS.get(kind)
    if parser is None:
        reason = Reason.QOS_NOT_SUPPORTED if kind in (5, 6, 7) else Reason.PROTOCOL_ERROR
        raise Violation(reason, f"a packet of type {kind} from a client")
    if flags != (2 if kind in (8, 10) else 0):
        raise Violation(Reason.MALFORMED, f"flags {flags} on a packet of type {kind}")
    return parser(data, at, end, version)


def _packet_id(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at + 2 > end:
        raise Violation(Reason.MALFORMED, "a packet id is cut off")
    packet_id = data[at] << 8 | data[at + 1]
    if not packet_id:
        raise Violation(Reason.PROTOCOL_ERROR, "packet id 0")
    return packet_id, at + 2


def _connect(data: bytes, at: int, end: int, _: int) -> Connect:
    name, at = p.text(data, at, end)
    if at + 4 > end:
        raise Violation(Reason.MALFORMED, "CONNECT is cut off")
    version, flags = data[at], data[at + 1]
    if name != "MQTT" or version not in (V311, V5):
        raise Violation(Reason.UNSUPPORTED_VERSION, f"protocol {name[:10]!r} level {version}")
    if flags & 1 or flags & 0x18 == 0x18 or (not flags & 4 and flags & 0x38):
        raise Violation(Reason.MALFORMED, f"CONNECT flags 0x{flags:02x}")
    if version == V311 and flags & 0x40 and not flags & 0x80:
        raise Violation(Reason.MALFORMED, "a password without a user name")
    keep_alive = data[at + 2] << 8 | data[at + 3]
    at += 4
    found: p.Properties = {}
    if version == V5:
        found, at = p.read(data, at, end, p.OF_CONNECT)
        if 0 in (found.get(p.RECEIVE_MAXIMUM), found.get(p.MAXIMUM_PACKET)):
            raise Violation(Reason.PROTOCOL_ERROR, "a receive maximum or maximum packet size of 0")
    client_id, at = p.text(data, at, end)
    will = None
    if flags & 4:
        will, at = _will(data, at, end, version, flags)
    user: str | None = None
    password: bytes | None = None
    if flags & 0x80:
        user, at = p.text(data, at, end)
    if flags & 0x40:
        password, at = p.binary(data, at, end)
    if at != end:
        raise Violation(Reason.MALFORMED, "CONNECT is longer than what is in it")
    return Connect(
        version,
        bool(flags & 2),
        keep_alive,
        client_id,
        user,
        password,
        will,
        found.get(p.SESSION_EXPIRY, 0),
        found.get(p.RECEIVE_MAXIMUM, 65_535),
        found.get(p.MAXIMUM_PACKET, 0),
        found.get(p.AUTHENTICATION_METHOD, ""),
    )


def _will(data: bytes, at: int, end: int, version: int, flags: int) -> tuple[Will, int]:
    if version == V5:
        _, at = p.read(data, at, end, p.OF_WILL)
    topic, at = p.text(data, at, end)
    payload, at = p.binary(data, at, end)
    return Will(topic, payload, flags >> 3 & 3, bool(flags & 0x20)), at


def _puback(data: bytes, at: int, end: int, version: int) -> Puback:
    packet_id, at = _packet_id(data, at, end)
    reason = 0
    if version == V5 and at < end:
        reason = data[at]
        if at + 1 < end:
            _, at = p.read(data, at + 1, end, p.OF_PUBACK)
    return Puback(packet_id, reason)


def _subscribe(data: bytes, at: int, end: int, version: int) -> Subscribe:
    packet_id, at = _packet_id(data, at, end)
    found: p.Properties = {}
    if version == V5:
        found, at = p.read(data, at, end, p.OF_SUBSCRIBE)
    filters = []
    while at < end:
        topic, at = p.text(data, at, end)
        if at >= end:
            raise Violation(Reason.MALFORMED, "a filter without its options")
        options = data[at]
        if options & 3 == 3 or options & (0xC0 if version == V5 else 0xFC):
            raise Violation(Reason.MALFORMED, f"subscription options 0x{options:02x}")
        filters.append((topic, options & 3))
        at += 1
    if not filters:
        raise Violation(Reason.PROTOCOL_ERROR, "SUBSCRIBE without a filter")
    return Subscribe(packet_id, tuple(filters), p.SUBSCRIPTION_IDENTIFIER in found)


def _unsubscribe(data: bytes, at: int, end: int, version: int) -> Unsubscribe:
    packet_id, at = _packet_id(data, at, end)
    if version == V5:
        _, at = p.read(data, at, end, p.OF_UNSUBSCRIBE)
    filters = []
    while at < end:
        topic, at = p.text(data, at, end)
        filters.append(topic)
    if not filters:
        raise Violation(Reason.PROTOCOL_ERROR, "UNSUBSCRIBE without a filter")
    return Unsubscribe(packet_id, tuple(filters))


def _ping(data: bytes, at: int, end: int, version: int) -> Ping:
    return Ping()


def _disconnect(data: bytes, at: int, end: int, version: int) -> Disconnect:
    if version != V5 or at >= end:
        return Disconnect(0)
    if at + 1 < end:
        p.read(data, at + 1, end, p.OF_DISCONNECT)
    return Disconnect(data[at])


_PARSERS: dict[int, Callable[[bytes, int, int, int], Packet]] = {
    1: _connect,
    4: _puback,
    8: _subscribe,
    10: _unsubscribe,
    12: _ping,
    14: _disconnect,
}

"""Properties of MQTT 5 (2.2.2): read and written. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from connectors.mqtt_bridge.endpoint.reasons import Reason, Violation

PAYLOAD_FORMAT = 0x01
MESSAGE_EXPIRY = 0x02
CONTENT_TYPE = 0x03
RESPONSE_TOPIC = 0x08
CORRELATION_DATA = 0x09
SUBSCRIPTION_IDENTIFIER = 0x0B
SESSION_EXPIRY = 0x11
ASSIGNED_CLIENT_ID = 0x12
AUTHENTICATION_METHOD = 0x15
AUTHENTICATION_DATA = 0x16
REQUEST_PROBLEM = 0x17
WILL_DELAY = 0x18
REQUEST_RESPONSE = 0x19
REASON_STRING = 0x1F
RECEIVE_MAXIMUM = 0x21
TOPIC_ALIAS_MAXIMUM = 0x22
TOPIC_ALIAS = 0x23
MAXIMUM_QOS = 0x24
USER = 0x26
MAXIMUM_PACKET = 0x27
SUBSCRIPTION_IDENTIFIERS_AVAILABLE = 0x29
SHARED_AVAILABLE = 0x2A

_BYTE, _TWO, _FOUR, _VARINT, _TEXT, _BINARY, _PAIR = range(7)

_FORMS = {
    PAYLOAD_FORMAT: _BYTE,
    MESSAGE_EXPIRY: _FOUR,
    CONTENT_TYPE: _TEXT,
    RESPONSE_TOPIC: _TEXT,
    CORRELATION_DATA: _BINARY,
    SUBSCRIPTION_IDENTIFIER: _VARINT,
    SESSION_EXPIRY: _FOUR,
    ASSIGNED_CLIENT_ID: _TEXT,
    AUTHENTICATION_METHOD: _TEXT,
    AUTHENTICATION_DATA: _BINARY,
    REQUEST_PROBLEM: _BYTE,
    WILL_DELAY: _FOUR,
    REQUEST_RESPONSE: _BYTE,
    REASON_STRING: _TEXT,
    RECEIVE_MAXIMUM: _TWO,
    TOPIC_ALIAS_MAXIMUM: _TWO,
    TOPIC_ALIAS: _TWO,
    MAXIMUM_QOS: _BYTE,
    USER: _PAIR,
    MAXIMUM_PACKET: _FOUR,
    SUBSCRIPTION_IDENTIFIERS_AVAILABLE: _BYTE,
    SHARED_AVAILABLE: _BYTE,
}
_WIDTH = {_BYTE: 1, _TWO: 2, _FOUR: 4}

OF_CONNECT = frozenset(
    {
        SESSION_EXPIRY,
        AUTHENTICATION_METHOD,
        AUTHENTICATION_DATA,
        REQUEST_PROBLEM,
        REQUEST_RESPONSE,
        RECEIVE_MAXIMUM,
        TOPIC_ALIAS_MAXIMUM,
        USER,
        MAXIMUM_PACKET,
    }
)
OF_WILL = frozenset({WILL_DELAY, PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, USER})
OF_PUBLISH = frozenset(
    {PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION_DATA, TOPIC_ALIAS, USER}
)
OF_PUBACK = frozenset({REASON_STRING, USER})
OF_SUBSCRIBE = frozenset({SUBSCRIPTION_IDENTIFIER, USER})
OF_UNSUBSCRIBE = frozenset({USER})
OF_DISCONNECT = frozenset({SESSION_EXPIRY, REASON_STRING, USER})

Properties = dict[int, Any]
"""Identifier to int, str or bytes; USER to a list of pairs of str."""


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A variable byte integer (1.5.5) and the place behind it."""
    value = shift = 0
    while shift < 28:
        if at >= end:
            raise Violation(Reason.MALFORMED, "a variable byte integer is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Violation(Reason.MALFORMED, "a variable byte integer has more than four bytes")


def write_varint(value: int) -> bytes:
    """A variable byte integer; values up to 268,435,455."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        if not value:
            out.append(low)
            return bytes(out)
        out.append(low | 0x80)


def binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Bytes behind their two-byte length, and the place behind them."""
    begin = at + 2
    if begin > end or (stop := begin + (data[at] << 8 | data[at + 1])) > end:
        raise Violation(Reason.MALFORMED, "a field is longer than its packet")
    return bytes(data[begin:stop]), stop


def text(data: bytes, at: int, end: int) -> tuple[str, int]:
    """A UTF-8 string (1.5.4), without NUL, and the place behind it."""
    raw, at = binary(data, at, end)
    return utf8(raw), at


def utf8(raw: bytes) -> str:
    """The text of bytes; Violation if they are no UTF-8 as MQTT wants it."""
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        raise Violation(Reason.MALFORMED, "a text is not UTF-8") from None
    if "\0" in value:
        raise Violation(Reason.MALFORMED, "a text has a NUL in it")
    return value


def read(data: bytes, at: int, end: int, allowed: frozenset[int]) -> tuple[Properties, int]:
    """The properties of a packet and the place behind them."""
    length, at = varint(data, at, end)
    stop = at + length
    if stop > end:
        raise Violation(Reason.MALFORMED, "the properties are longer than their packet")
    found: Properties = {}
    while at < stop:
        identifier, at = varint(data, at, stop)
        form = _FORMS.get(identifier)
        if form is None or identifier not in allowed:
            raise Violation(Reason.PROTOCOL_ERROR, f"property 0x{identifier:02x} does not belong here")
        if identifier == USER:
            name, at = text(data, at, stop)
            value, at = text(data, at, stop)
            found.setdefault(USER, []).append((name, value))
            continue
        if identifier in found:
            raise Violation(Reason.PROTOCOL_ERROR, f"property 0x{identifier:02x} stands there twice")
        found[identifier], at = _value(data, at, stop, form)
    return found, stop


def _value(data: bytes, at: int, stop: int, form: int) -> tuple[Any, int]:
    if form == _TEXT:
        return text(data, at, stop)
    if form == _BINARY:
        return binary(data, at, stop)
    if form == _VARINT:
        return varint(data, at, stop)
    width = _WIDTH[form]
    if at + width > stop:
        raise Violation(Reason.MALFORMED, "a property is cut off")
    return int.from_bytes(data[at : at + width], "big"), at + width


def write(properties: Mapping[int, Any]) -> bytes:
    """Properties with their length before them."""
    out = bytearray()
    for identifier, value in properties.items():
        form = _FORMS[identifier]
        for one in value if form == _PAIR else (value,):
            out.append(identifier)
            if form == _PAIR:
                out += _written_text(one[0]) + _written_text(one[1])
            elif form == _TEXT:
                out += _written_text(one)
            elif form == _BINARY:
                out += len(one).to_bytes(2, "big") + one
            elif form == _VARINT:
                out += write_varint(one)
            else:
                out += int(one).to_bytes(_WIDTH[form], "big")
    return write_varint(len(out)) + bytes(out)


def _written_text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw

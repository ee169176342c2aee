"""Reason codes of MQTT 5, and the return codes of MQTT 3.1.1 that stand for them."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Reason codes that the endpoint uses (MQTT 5, 2.4)."""

    SUCCESS = 0x00
    NO_SUBSCRIPTION = 0x11
    MALFORMED = 0x81
    PROTOCOL_ERROR = 0x82
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_LOGIN = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_BUSY = 0x89
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    TAKEN_OVER = 0x8E
    FILTER_INVALID = 0x8F
    TOPIC_INVALID = 0x90
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    QOS_NOT_SUPPORTED = 0x9B
    SHARED_NOT_SUPPORTED = 0x9E
    SUBSCRIPTION_IDS_NOT_SUPPORTED = 0xA1


_RETURN_CODES = {
    Reason.SUCCESS: 0,
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.CLIENT_ID_NOT_VALID: 2,
    Reason.SERVER_BUSY: 3,
    Reason.BAD_LOGIN: 4,
    Reason.NOT_AUTHORIZED: 5,
}


def return_code(reason: Reason) -> int:
    """The CONNACK return code of MQTT 3.1.1 for a reason (3, server unavailable, for those it has no word for)."""
    return _RETURN_CODES.get(reason, 3)


class Violation(Exception):
    """A packet that breaks the protocol: the connection is closed with this reason."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason

"""Who may connect, and as whom.

Here the user name is the device number and the password is not looked at: whoever reaches the
port is believed. That is for 127.0.0.1 and trusted networks; tokens, passwords and certificates
come behind the same function.
"""

from __future__ import annotations

from typing import NamedTuple

from connectors.mqtt_bridge.endpoint.packets import Connect
from connectors.mqtt_bridge.endpoint.reasons import Reason
from connectors.mqtt_bridge.identity import Trust
from tpstream.uplink.dialects import valid_number


class Verdict(NamedTuple):
    """Let in (`reason` SUCCESS), as `login`, or without one where topics are trusted."""

    reason: Reason
    login: str | None = None
    text: str = ""
    """Why not, for metrics."""


def judge(connect: Connect, trust: Trust) -> Verdict:
    """Who a CONNECT is from."""
    if connect.authentication_method:
        return Verdict(Reason.BAD_AUTHENTICATION_METHOD, text="authentication method")
    if connect.user and trust.login:
        if not valid_number(connect.user):
            return Verdict(Reason.BAD_LOGIN, text="user name is no device number")
        return Verdict(Reason.SUCCESS, connect.user)
    if trust.topic:
        return Verdict(Reason.SUCCESS)
    return Verdict(Reason.NOT_AUTHORIZED, text="no login")

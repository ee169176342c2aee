"""Who may speak as whom (docs/protocol.md, Identity), as a table."""

from __future__ import annotations

import pytest

from connectors.mqtt_bridge.endpoint.logins import judge
from connectors.mqtt_bridge.endpoint.packets import Connect
from connectors.mqtt_bridge.endpoint.reasons import Reason
from connectors.mqtt_bridge.identity import Resolved, Trust, resolve
from tpstream.bus.envelope import Identity, Refusal, WayIn
from tpstream.errors import ConfigurationError

MINE, OTHERS, STATUS = "devices/me/telemetry", "devices/other/event/1", "devices/status/me"
ENDPOINT, BROKER = WayIn.ENDPOINT, WayIn.BROKER


@pytest.mark.parametrize(
    ("trusted", "way", "login", "topic", "device", "identity", "refusal"),
    [
        ("login", ENDPOINT, "me", MINE, "me", Identity.LOGIN, Refusal.NONE),
        ("login", ENDPOINT, "me", OTHERS, "", Identity.LOGIN, Refusal.IDENTITY),
        ("login", ENDPOINT, "me", STATUS, "", Identity.LOGIN, Refusal.IDENTITY),
        ("login", ENDPOINT, "me", "no/topic", "me", Identity.LOGIN, Refusal.TOPIC),
        ("login,topic", ENDPOINT, "me", OTHERS, "", Identity.LOGIN, Refusal.IDENTITY),
        ("login,topic", ENDPOINT, None, OTHERS, "other", Identity.TOPIC, Refusal.NONE),
        ("login,topic", ENDPOINT, None, STATUS, "", Identity.NONE, Refusal.IDENTITY),
        ("login,topic", ENDPOINT, None, "no/topic", "", Identity.NONE, Refusal.TOPIC),
        ("login", ENDPOINT, None, MINE, "", Identity.NONE, Refusal.IDENTITY),
        ("login,topic", ENDPOINT, None, f"up/me/{MINE}", "", Identity.NONE, Refusal.TOPIC),
        ("topic", BROKER, None, MINE, "me", Identity.TOPIC, Refusal.NONE),
        ("prefix", BROKER, None, f"up/me/{MINE}", "me", Identity.PREFIX, Refusal.NONE),
        ("prefix", BROKER, None, f"up/me/{OTHERS}", "", Identity.PREFIX, Refusal.IDENTITY),
        ("prefix", BROKER, None, f"up/a+b/{MINE}", "", Identity.NONE, Refusal.IDENTITY),
        ("prefix", BROKER, None, MINE, "", Identity.NONE, Refusal.IDENTITY),
        ("prefix,topic", BROKER, None, MINE, "me", Identity.TOPIC, Refusal.NONE),
    ],
)
def test_resolve(
    trusted: str, way: WayIn, login: str | None, topic: str, device: str, identity: Identity, refusal: Refusal
) -> None:
    found = resolve(Trust.parse(trusted, way), way, login, topic)
    assert found[:3] == (device, identity, refusal)
    assert found.topic == (topic.split("/", 2)[2] if topic.startswith("up/") and way is BROKER else topic)


def test_the_empty_device_is_never_believed() -> None:
    assert resolve(Trust(topic=True), BROKER, None, "devices//telemetry") == Resolved(
        "", Identity.NONE, Refusal.TOPIC, "devices//telemetry"
    )


@pytest.mark.parametrize(
    ("text", "way"),
    [("", ENDPOINT), ("logn", ENDPOINT), ("login,envelope", ENDPOINT), ("prefix", ENDPOINT), ("login", BROKER)],
)
def test_what_cannot_be_trusted_is_one_line(text: str, way: WayIn) -> None:
    with pytest.raises(ConfigurationError) as error:
        Trust.parse(text, way)
    assert "TPSTREAM_TRUSTED_IDENTITY" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("trusted", "user", "method", "reason", "login"),
    [
        ("login", "me", "", Reason.SUCCESS, "me"),
        ("login", None, "", Reason.NOT_AUTHORIZED, None),
        ("login", "", "", Reason.NOT_AUTHORIZED, None),
        ("login", "a/b", "", Reason.BAD_LOGIN, None),
        ("login", "telemetry", "", Reason.BAD_LOGIN, None),
        ("login,topic", None, "", Reason.SUCCESS, None),
        ("login,topic", "#", "", Reason.BAD_LOGIN, None),
        ("topic", "me", "", Reason.SUCCESS, None),
        ("login", "me", "SCRAM", Reason.BAD_AUTHENTICATION_METHOD, None),
    ],
)
def test_judge(trusted: str, user: str | None, method: str, reason: Reason, login: str | None) -> None:
    connect = Connect(5, True, 60, "c", user, None, authentication_method=method)
    verdict = judge(connect, Trust.parse(trusted, ENDPOINT))
    assert (verdict.reason, verdict.login) == (reason, login)

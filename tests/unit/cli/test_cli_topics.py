"""What `tpstream topics --tail` shows of a record."""

from __future__ import annotations

import json

import pytest
from aiokafka import ConsumerRecord

from tpstream.bus import topics
from tpstream.bus.envelope import Headers, Kind, RawHeader
from tpstream.cli.topics import _as_json, _as_line, _named
from tpstream.errors import ConfigurationError
from tpstream.messages import Alarm, AlarmState


def record(topic: str, value: bytes | None, headers: Headers = (), key: bytes = b"d1") -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(topic, 3, 42, 1_700_000_000_123, 0, key, value, None, 0, 0, headers)


ALARM = topics.alarms.encode(Alarm("a", "hot", "d1", "warning", AlarmState.ACTIVE, 1, 1))
PUBLISH = (("tp", RawHeader(Kind.PUBLISH).pack()), ("topic", b"devices/d1/telemetry"))
TICK = (("tp", RawHeader(Kind.TICK).pack()),)


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (record("tp.alarms.v1", ALARM), json.loads(ALARM)),
        (record("tp.alarms.v1", b'{"id":1}'), "cannot be read: tp.alarms.v1: Expected `str`, got `int` - at `$.id`"),
        (record("tp.alarms.v1", b'{"release":"x"}', TICK), {"release": "x"}),
        (record("tp.uplink.raw.v1", b"plain \xc3\xa4", PUBLISH), "plain ä"),
        (record("tp.uplink.raw.v1", b"\x00\xff", PUBLISH), "0x00ff"),
        (record("tpstream-process-alarms-changelog", b"\xff"), "0xff"),
        (record("tp.config.devices.v1", None), None),
    ],
)
def test_a_value_is_shown_as_what_it_is(one: ConsumerRecord[bytes, bytes], value: object) -> None:
    assert json.loads(_as_json(one))["value"] == value


def test_a_line_says_where_when_whose_and_what() -> None:
    line = _as_line(record("tp.uplink.raw.v1", b'{"t": 1}', PUBLISH))
    assert line == '3-42  22:13:20.123  d1  publish  devices/d1/telemetry  {"t": 1}'
    assert _as_line(record("tp.config.devices.v1", None)) == "3-42  22:13:20.123  d1  (deleted)"


def test_a_payload_commands_no_terminal() -> None:
    assert "\x1b" not in _as_line(record("tp.uplink.raw.v1", b"\x1b[2Jx", PUBLISH, key=b"\x1b]0;"))


@pytest.mark.parametrize("short", ["windows", "tp.windows", "tp.windows.v1"])
def test_a_topic_may_be_named_shortly(short: str) -> None:
    assert _named(short, {"tp.windows.v1", "tp.alarms.v1"}) == "tp.windows.v1"
    with pytest.raises(ConfigurationError, match="'gossip'"):
        _named("gossip", {"tp.windows.v1"})

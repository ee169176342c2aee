"""Whatever a device sends ends as docs/protocol.md says: a row, `_raw` or a dead letter; and nobody else notices."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
import pytest
from parts.device import Device
from parts.fleet import Fleet, whole
from parts.mosquitto import program
from parts.whole import Platform

from tpstream.bus import topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOW = int(time.time() * 1000)
HOUR = 3_600_000


class Case(NamedTuple):
    """A payload, the values that are stored of it by key, and the dead letters of it: reason, index."""

    name: str
    payload: bytes
    stored: Mapping[str, Any] = MappingProxyType({})
    dead: tuple[tuple[str, int], ...] = ()
    topic: str = ""
    """Empty: the device's telemetry."""


def told(value: Any) -> bytes:
    return json.dumps(value).encode()


def nested(levels: int) -> bytes:
    return b'{"deep":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


BAD_ONE = [{"ts": NOW - 2000, "values": {"t": 1}}, {"ts": "noon", "values": {"t": 2}}, {"ts": NOW, "values": {"t": 3}}]

CASES = [
    Case("empty", b"", dead=(("empty", 0),)),
    Case("ten-megabytes", told({"t": "x" * 10_000_000}), dead=(("size", 0),)),
    Case("just-too-large", b'{"t":"' + b"x" * 999_993 + b'"}', dead=(("size", 0),)),
    Case("not-utf8", b"\xff\xfe\x00", {"_raw": b64encode(b"\xff\xfe\x00").decode()}),
    Case("no-json", b"hello", {"_raw": "hello"}),
    Case("nan", b'{"t":NaN}', {"_raw": '{"t":NaN}'}),
    Case("infinity", b'{"t":-Infinity}', {"_raw": '{"t":-Infinity}'}),
    Case("cut-short", b'{"t":1', {"_raw": '{"t":1'}),
    Case("a-number", b"21.5", {"_raw": 21.5}),
    Case("null", b"null", {"_raw": "null"}),
    Case("numbers", b"[1,2]", {"_raw": "[1,2]"}),
    Case("as-deep-as-may-be", nested(128), {"deep": nested(128)[8:-1].decode()}),
    Case("too-deep", nested(129), dead=(("nesting", 0),)),
    Case("very-deep", b"[" * 100_000, dead=(("nesting", 0),)),
    Case("wrong-types", b'{"a":null,"b":{"c":1},"d":"x","e":true}', {"a": "null", "b": '{"c":1}', "d": "x", "e": 1.0}),
    Case("beyond-a-double", b'{"t":1e999,"u":9007199254740993}', {"t": "1e999", "u": 9007199254740992.0}),
    Case("twice-the-key", b'{"t":1,"t":2}', {"t": 2.0}),
    Case("lone-surrogate", b'{"t":"\\ud800"}', {"t": "\ufffd"}),
    Case("empty-key", b'{"":1}', {"": 1.0}),
    Case("long-key", told({"k" * 257: 1, "t": 2}), {"t": 2.0}, (("key", 0),)),
    Case("no-time", told({"ts": "yesterday", "values": {"t": 1}}), dead=(("time", 0),)),
    Case("before-1970", told({"ts": -1, "values": {"t": 1}}), dead=(("time", 0),)),
    Case("beyond-time", told({"ts": 10**14, "values": {"t": 1}}), dead=(("time", 0),)),
    Case("boolean-time", told({"ts": True, "values": {"t": 1}}), dead=(("time", 0),)),
    Case("clock-far-ahead", told({"ts": NOW + 25 * HOUR, "values": {"t": 1}}), dead=(("clock", 0),)),
    Case("clock-a-little-ahead", told({"ts": NOW + 23 * HOUR, "values": {"t": 1}}), {"t": 1.0}),
    Case("history-with-a-bad-time", told(BAD_ONE), {"t": 3.0}, (("time", 1),)),
    Case("history-with-a-number", told([{"ts": NOW, "values": {"t": 1}}, 5]), {"t": 1.0}, (("form", 1),)),
    Case("empty-history", b"[]"),
    Case("no-object-in-it", b"{}"),
    Case("unknown-topic", b'{"t":1}', dead=(("topic", 0),), topic="devices/{}/nonsense"),
    Case("foreign-topic", b'{"t":1}', dead=(("topic", 0),), topic="house/{}/temperature"),
    Case("own-status", b"1", dead=(("identity", 0),), topic="devices/status/{}"),
    Case("answer-to-nothing", b'{"result":0}', dead=(("response", 0),), topic="devices/{}/command/response/none"),
    Case("answer-no-json", b"yes", dead=(("response", 0),), topic="devices/{}/command/response/none"),
    Case("answer-without-id", b'{"result":0}', dead=(("message_id", 0),), topic="devices/{}/command/response"),
]


@contextmanager
def neighbour(platform: Platform, name: str) -> Iterator[None]:
    """A device publishes all the while; at the end its ledger is whole."""
    fleet = Fleet(platform, 1, 100_000, protocol=mqtt.MQTTv311, pause=0.01, prefix=name)
    fleet.start()
    yield
    platform.wait(lambda: len(fleet.ledger.acknowledged) > 10)
    fleet.enough()
    fleet.join(30)
    whole(platform, fleet)


def rows_of(platform: Platform, device: str) -> dict[str, Any]:
    """The newest value of each key of a device."""
    query = f"SELECT key, number, text, kind FROM telemetry_latest WHERE device = '{device}'"
    return {key: text if number is None else number for key, number, text, _ in platform.rows(query)}


def accounted(platform: Platform, prefix: str) -> tuple[int, int]:
    """The messages of a kind of device that are rows, dead letters or both; and all dead letters of them."""
    theirs = f"startsWith(device, '{prefix}-')"
    letters = f"FROM dead_letters WHERE {theirs} OR position(topic, '/{prefix}-') > 0"
    source = "SELECT toInt64(source_partition), toInt64(source_offset)"
    (sources,), (dead,) = (
        platform.rows(f"SELECT count() FROM ({source} FROM telemetry WHERE {theirs} UNION DISTINCT {source} {letters})")
        + platform.rows(f"SELECT count() {letters}")
    )  # fmt: skip
    return int(sources), int(dead)


@pytest.mark.parametrize("protocol", [mqtt.MQTTv311, mqtt.MQTTv5])
def test_each_ends_as_a_row_or_a_dead_letter(greenhouse: Platform, protocol: int) -> None:
    """All at once, so that what one breaks shows in another; nothing is left out and nothing is there twice."""
    prefix = f"odd{protocol}"
    with neighbour(greenhouse, f"{prefix}near"):
        for case in CASES:
            device = Device(greenhouse, f"{prefix}-{case.name}", protocol=protocol)
            device.say(case.payload, topic=case.topic.format(device.number))
            device.say({"after": 1})
            assert device.ended == [], f"{case.name}: the connection was closed"
            device.close()
    silent = sum(not case.stored and not case.dead for case in CASES)
    wanted = 2 * len(CASES) - silent, sum(len(case.dead) for case in CASES)
    until = time.monotonic() + 20
    while accounted(greenhouse, prefix) != wanted and time.monotonic() < until:
        time.sleep(0.2)
    letters = greenhouse.records(topics.dead_letters)
    for case in CASES:
        number = f"{prefix}-{case.name}"
        stored = rows_of(greenhouse, number)
        assert stored.pop("after", None) == 1.0, case.name
        assert stored == case.stored, case.name
        of_case = f"device = '{number}' OR endsWith(topic, '/{number}') OR position(topic, '/{number}/') > 0"
        shown = greenhouse.rows(f"SELECT id, reason, source_index FROM dead_letters WHERE {of_case}")
        assert sorted((reason, index) for _, reason, index in shown) == sorted(case.dead), case.name
        for id, reason, _ in shown:
            (letter,) = [one for one in letters if one.id == id]
            assert letter.reason == reason
            assert letter.detail, f"{case.name}: the letter says what was wrong"
            assert letter.payload == case.payload[:65_536] or letter.stage == "downlink", case.name
    assert accounted(greenhouse, prefix) == wanted


def test_the_history_around_a_bad_element_is_stored_with_its_times(greenhouse: Platform) -> None:
    device = Device(greenhouse, "history-1")
    device.say(BAD_ONE)
    device.close()
    query = "SELECT toUnixTimestamp64Milli(ts), number, ts_from FROM telemetry WHERE device = 'history-1' ORDER BY ts"
    greenhouse.wait(lambda: greenhouse.rows(query) == [(NOW - 2000, 1.0, "device"), (NOW, 3.0, "device")])


def test_beyond_the_largest_packet_the_connection_is_closed_and_nothing_taken(greenhouse: Platform) -> None:
    with neighbour(greenhouse, "packetnear"):
        device = Device(greenhouse, "packet-1")
        device.client.reconnect_delay_set(60, 60)
        device.client.publish("devices/packet-1/telemetry", b"x" * 17_000_000, qos=0)
        greenhouse.wait(lambda: device.ended)
        device.close()
        assert 'tpstream_bridge_disconnected_total{reason="packet too large"} 1.0' in bridge_metrics(greenhouse)
        after = Device(greenhouse, "packet-1")
        after.say({"after": 1})
        after.close()
        greenhouse.wait(lambda: rows_of(greenhouse, "packet-1") == {"after": 1.0})
    assert accounted(greenhouse, "packet") == (1, 0)


def bridge_metrics(platform: Platform) -> str:
    url = f"http://{platform.settings.host}:{platform.settings.bridge_web_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(("protocol", "answer"), [(mqtt.MQTTv311, 0), (mqtt.MQTTv5, 0x87)])
def test_who_is_logged_in_cannot_speak_as_another(greenhouse: Platform, protocol: int, answer: int) -> None:
    """Stored under neither; v3.1.1 has a PUBACK, so that it does not come for ever."""
    login, other = f"thief{protocol}-1", f"thief{protocol}-victim"
    with neighbour(greenhouse, f"thief{protocol}near"):
        thief = Device(greenhouse, login, login=login, protocol=protocol)
        assert thief.say({"t": 666}, topic=f"devices/{other}/telemetry") == answer
        assert thief.say({"t": 1}) == 0
        thief.close()
    greenhouse.wait(lambda: accounted(greenhouse, f"thief{protocol}") == (2, 1))
    assert rows_of(greenhouse, login) == {"t": 1.0}
    assert rows_of(greenhouse, other) == {}
    letter = f"SELECT device, reason, payload FROM dead_letters WHERE topic = 'devices/{other}/telemetry'"
    assert greenhouse.rows(letter) == [("", "identity", '{"t": 666}')]


def test_what_a_script_cannot_read_is_a_dead_letter_of_its_own(greenhouse: Platform) -> None:
    device = Device(greenhouse, "greenhouse-bin-odd")
    six = bytes.fromhex("0898 0226 0ce4")
    for payload in (six, b"12345", six, b"", six):
        device.say(payload)
    device.close()
    letters = "SELECT reason, count() FROM dead_letters WHERE device = 'greenhouse-bin-odd' GROUP BY 1 ORDER BY 1"
    greenhouse.wait(lambda: greenhouse.rows(letters) == [("empty", 1), ("script", 1)])
    temperatures = "SELECT number FROM telemetry WHERE device = 'greenhouse-bin-odd' AND key = 'temperature'"
    greenhouse.wait(lambda: greenhouse.rows(temperatures) == [(22.0,)] * 3)


def test_the_same_from_the_command_line(greenhouse: Platform) -> None:
    """mosquitto_pub, as in the README, sends nothing and a line that is no JSON."""
    where = ["-h", greenhouse.settings.host, "-p", str(greenhouse.settings.mqtt_port), "-q", "1"]
    for what in (["-n"], ["-m", "warm"], ["-m", '{"t":20}']):
        command = [program("mosquitto_pub"), *where, "-t", "devices/shell-1/telemetry", *what]
        done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    greenhouse.wait(lambda: accounted(greenhouse, "shell") == (3, 1))
    assert rows_of(greenhouse, "shell-1") == {"_raw": "warm", "t": 20.0}


def test_every_dead_letter_is_counted_by_its_reason(greenhouse: Platform) -> None:
    """The metric, over all that this file did, is what the table shows."""
    url = f"http://{greenhouse.settings.host}:{greenhouse.settings.web_port}/metrics"
    shown = dict(greenhouse.rows("SELECT reason, count() FROM dead_letters GROUP BY reason"))
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    counted: dict[str, int] = {}
    for reason, value in re.findall(r'^tpstream_dead_letters_total\{.*reason="(\w+)".*\} (\S+)$', text, re.M):
        counted[reason] = counted.get(reason, 0) + int(float(value))
    assert counted == shown

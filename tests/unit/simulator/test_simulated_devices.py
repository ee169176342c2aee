"""What simulated devices say, understand and answer."""

import json
from random import Random

import pytest

from tpstream.errors import TpstreamError
from tpstream.simulator.backoff import backoff
from tpstream.simulator.device import Device
from tpstream.simulator.fleet import Report, make, numbers
from tpstream.simulator.greenhouse import Reading
from tpstream.simulator.sensors import BinarySensor, JsonSensor, Sensor

NOW = 1_700_000_000_123
READING = Reading(temperature=21.5, humidity=40.25, battery=3.7, fan=True)


class Heard:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.switches: list[tuple[str, bool]] = []

    def connected(self, device: str) -> None: ...
    def lost(self, device: str, why: str) -> None: ...
    def switched(self, device: str, on: bool) -> None:
        self.switches.append((device, on))


def test_a_json_sensor_sends_its_own_time() -> None:
    said = json.loads(JsonSensor().say(READING, NOW))
    assert said == {"ts": NOW, "values": {"temperature": 21.5, "humidity": 40.25, "fan": True}}


@pytest.mark.parametrize(
    ("reading", "hexadecimal"),
    [
        (READING, "0866 0fb9 0e74"),
        (Reading(-5.0, 100.0, 4.2, False), "fe0c 2710 1068"),
        (Reading(-999.0, 0.0, 0.0, False), "8000 0000 0000"),
    ],
)
def test_a_binary_sensor_sends_six_bytes(reading: Reading, hexadecimal: str) -> None:
    assert BinarySensor().say(reading, NOW) == bytes.fromhex(hexadecimal)


@pytest.mark.parametrize(
    ("kind", "payload", "on"),
    [
        (JsonSensor, b'{"method":"fan","params":{"on":true}}', True),
        (JsonSensor, b'{"method":"fan","params":{"on":false}}', False),
        (BinarySensor, b"\x01\x01", True),
        (BinarySensor, b"\x01\x00", False),
    ],
)
async def test_a_command_is_carried_out_and_answered(kind: type[Sensor], payload: bytes, on: bool) -> None:
    device, heard = a_device(kind)
    device.greenhouse.switch(not on)
    for _ in range(2):  # the second time is a repeat
        said = json.loads(device.obey(payload, NOW))
        assert said == {"result": 0, "message": "success", "ts": NOW // 1000, "method": "fan"}
    assert device.greenhouse.fan is on
    assert heard.switches == [("greenhouse-1", on)]


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (JsonSensor, b""),
        (JsonSensor, b"\xff"),
        (JsonSensor, b"[]"),
        (JsonSensor, b'{"method":"explode"}'),
        (JsonSensor, b'{"method":"fan"}'),
        (JsonSensor, b'{"method":"fan","params":{"on":"yes"}}'),
        (BinarySensor, b""),
        (BinarySensor, b"\x02\x01"),
        (BinarySensor, b"\x01\x02"),
        (BinarySensor, b'{"method":"fan","params":{"on":true}}'),
    ],
)
async def test_what_is_no_command_is_refused_and_changes_nothing(kind: type[Sensor], payload: bytes) -> None:
    device, heard = a_device(kind)
    with pytest.raises(TpstreamError):
        kind().understand(payload)
    said = json.loads(device.obey(payload, NOW))
    assert said["result"] == 1
    assert said["message"]
    assert not device.greenhouse.fan
    assert heard.switches == []


async def test_only_a_sensor_with_a_clock_keeps_readings_while_it_is_cut_off() -> None:
    assert a_device(JsonSensor)[0].kept.maxlen == 3600
    assert a_device(BinarySensor)[0].kept.maxlen == 1


def test_the_fleet_is_numbered_by_kind() -> None:
    assert [name for name, _ in numbers(7)] == [
        "greenhouse-1",
        "greenhouse-2",
        "greenhouse-bin-1",
        "greenhouse-3",
        "greenhouse-4",
        "greenhouse-bin-2",
        "greenhouse-5",
    ]
    assert len({name for name, _ in numbers(100)}) == 100
    assert all((kind is BinarySensor) == ("-bin-" in name) for name, kind in numbers(100))


def test_the_report_says_each_change_once() -> None:
    lines: list[str] = []
    report = Report(2, "127.0.0.1:1883", lines.append)
    for _ in range(3):
        report.lost("a", "refused")
        report.lost("b", "refused")
    report.connected("a")
    report.lost("b", "refused")
    report.connected("b")
    report.lost("a", "gone")
    report.connected("a")
    assert [line.split()[0] for line in lines] == ["no", "2", "no", "2"]


def test_waits_double_up_to_a_bound_and_are_drawn() -> None:
    waits = backoff(Random(1), first=1.0, most=8.0)
    got = [next(waits) for _ in range(10)]
    for wait, most in zip(got, [1, 2, 4, 8, 8, 8, 8, 8, 8, 8], strict=True):
        assert most / 2 <= wait <= most
    assert len(set(got)) == 10


def a_device(kind: type[Sensor]) -> tuple[Device, Heard]:
    heard = Heard()
    return make("greenhouse-1", kind, 1.0, Random(1), heard), heard

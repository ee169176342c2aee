"""The example application, end to end: bytes decoded, a window's mean, an alarm, a command, and back."""

from __future__ import annotations

import time
from collections import defaultdict
from math import log
from statistics import fmean
from typing import Any

import pytest
from parts.device import SUCCESS, Device
from parts.whole import Platform

from tpstream.bus import topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SECOND = 1000
WINDOW = 10 * SECOND


def past(seconds: int) -> int:
    """The start of a window so long ago, ms."""
    return (int(time.time()) - seconds) * SECOND // WINDOW * WINDOW


def six_bytes(temperature: float, humidity: float, battery: float) -> bytes:
    return b"".join(round(x).to_bytes(2, "big") for x in (temperature * 100, humidity * 100, battery * 1000))


def a_window(start: int, temperature: float) -> list[tuple[int, float]]:
    """A reading each second of ten, around a mean."""
    return [(start + n * SECOND, temperature + (n - 4.5) / 10) for n in range(10)]


def reading(ts: int, temperature: float) -> dict[str, Any]:
    return {"ts": ts, "values": {"temperature": temperature, "humidity": 50}}


def means(readings: list[tuple[int, float]]) -> dict[int, tuple[int, float]]:
    """Of each window by start: count and mean."""
    by_window = defaultdict(list)
    for ts, temperature in readings:
        by_window[ts // WINDOW * WINDOW].append(temperature)
    return {start: (len(values), fmean(values)) for start, values in by_window.items()}


def windows_of(platform: Platform, device: str) -> dict[int, tuple[int, float]]:
    query = "SELECT toUnixTimestamp64Milli(start), count, value FROM windows"
    return {row[0]: row[1:] for row in platform.rows(f"{query} WHERE device = '{device}'")}


def alarms_of(platform: Platform, device: str) -> list[tuple[Any, ...]]:
    return platform.rows(f"SELECT rule, severity, state, value FROM alarms WHERE device = '{device}'")


def test_too_hot_for_two_windows_then_cool_again(greenhouse: Platform) -> None:
    device = Device(greenhouse, "house-1")
    start = past(600)
    temperatures = (25.0, 31.0, 29.0, 31.0, 32.0, 33.0, 29.0, 27.0, 26.0)
    readings = [one for n, t in enumerate(temperatures) for one in a_window(start + n * WINDOW, t)]
    for n, (ts, temperature) in enumerate(readings):
        device.say(reading(ts, temperature))
        if n == 5 * 10 + 1:  # the fifth window, the second hot one in a row, is not closed yet
            greenhouse.wait(lambda: len(windows_of(greenhouse, device.number)) == 4)
            assert alarms_of(greenhouse, device.number) == []
            assert device.commands == []
        if n == 5 * 10 + 2:  # now it is
            greenhouse.wait(lambda: device.commands)
            greenhouse.wait(lambda: alarms_of(greenhouse, device.number))
            assert [row[:3] for row in alarms_of(greenhouse, device.number)] == [("too-hot", "warning", "active")]
    closing = readings[-1][0] + 3 * SECOND
    device.say(reading(closing, 26.0))
    greenhouse.wait(lambda: len(device.commands) == 2)
    on, off = device.commands
    assert (on.payload, off.payload) == (
        b'{"method":"fan","params":{"on":true}}',
        b'{"method":"fan","params":{"on":false}}',
    )
    for command in device.commands:
        assert (command.qos, command.retained) == (1, False)
        assert command.topic == f"devices/command/house-1/{command.id}"
        ended = greenhouse.ended(command.id)
        assert (ended["state"], ended["attempts"], ended["device"]) == ("SUCCEEDED", 1, "house-1")
    expected = means(readings)
    greenhouse.wait(lambda: windows_of(greenhouse, device.number).keys() == expected.keys())
    for begin, (count, mean) in windows_of(greenhouse, device.number).items():
        assert (count, mean) == (expected[begin][0], pytest.approx(expected[begin][1], abs=1e-9))
    ((rule, _, state, value),) = alarms_of(greenhouse, device.number)
    assert (rule, state) == ("too-hot", "cleared")
    assert value == pytest.approx(expected[start + 4 * WINDOW][1]), "what it was raised by"
    told = [alarm.state.value for alarm in greenhouse.records(topics.alarms) if alarm.device == device.number]
    assert told == ["active", "cleared"], "each once"
    assert len(device.commands) == 2
    device.close()


def test_what_comes_late_is_stored_and_told_and_changes_no_window(greenhouse: Platform) -> None:
    device = Device(greenhouse, "house-late")
    start = past(300)
    device.say(reading(start + 9 * SECOND, 20.0))
    device.say(reading(start + 11 * SECOND, 21.0))  # the watermark: 11 s, the window is open until 12
    device.say(reading(start + 1 * SECOND, 22.0))  # out of order, in time
    device.say(reading(start + 12 * SECOND, 23.0))
    device.say(reading(start + 2 * SECOND, 24.0))  # late
    greenhouse.wait(lambda: windows_of(greenhouse, device.number) == {start: (2, 21.0)})
    stored = "SELECT count() FROM telemetry WHERE device = 'house-late' AND key = 'temperature'"
    greenhouse.wait(lambda: greenhouse.rows(stored) == [(5,)])
    (late,) = [one for one in greenhouse.records(topics.late) if one.device == device.number]
    assert (late.reason, late.window, late.ts, late.number) == (
        "window",
        "temperature_mean_10s",
        start + 2 * SECOND,
        24.0,
    )
    device.close()


def test_a_device_whose_clock_is_wrong_makes_nobody_elses_data_late(greenhouse: Platform) -> None:
    ahead, right = Device(greenhouse, "house-ahead"), Device(greenhouse, "house-right")
    start = past(900)
    ahead.say(reading(int(time.time() * 1000) + 3_600_000, 20.0))
    for ts, temperature in [*a_window(start, 20.0), *a_window(start + WINDOW, 21.0)]:
        right.say(reading(ts, temperature))
    greenhouse.wait(lambda: windows_of(greenhouse, right.number) == {start: (10, pytest.approx(20.0))})
    assert windows_of(greenhouse, ahead.number) == {}
    ahead.close()
    right.close()


def test_six_bytes_up_and_two_bytes_down(greenhouse: Platform) -> None:
    """The binary sensor: scripts of its profile decode what it says and encode what it is told."""
    device = Device(greenhouse, "greenhouse-bin-9")
    device.say(six_bytes(21.5, 55.25, 3.3))
    query = "SELECT key, number, ts_from FROM telemetry WHERE device = 'greenhouse-bin-9' ORDER BY key"
    rows = [("battery", 3.3), ("dew_point", dew_point(21.5, 55.25)), ("humidity", 55.25), ("temperature", 21.5)]
    greenhouse.wait(lambda: greenhouse.rows(query) == [(*row, "delivery") for row in rows])
    for on in (True, False):
        id = greenhouse.command(device.number, "fan", params={"on": on})
        assert greenhouse.ended(id)["state"] == "SUCCEEDED"
    assert [command.payload for command in device.commands] == [b"\x01\x01", b"\x01\x00"]
    ended = greenhouse.ended(greenhouse.command(device.number, "reboot"))
    assert ended["state"] == "FAILED"
    assert "the command fan only" in ended["result"]
    assert len(device.commands) == 2
    device.close()


def dew_point(temperature: float, humidity: float) -> float:
    """As an engineer would work it out, apart from the example."""
    gamma = log(humidity / 100) + 17.62 * temperature / (243.12 + temperature)
    return round(243.12 * gamma / (17.62 - gamma), 2)


def test_the_custom_agent_puts_the_dew_point_beside_each_reading(greenhouse: Platform) -> None:
    device = Device(greenhouse, "house-dew", answer=lambda command: SUCCESS)
    start = past(1200)
    readings = [(start + n * SECOND, 15.0 + n, 40.0 + n) for n in range(20)]
    for ts, temperature, humidity in readings:
        device.say({"ts": ts, "values": {"temperature": temperature, "humidity": humidity}})
    device.say({"ts": start + 60 * SECOND, "values": {"humidity": 50}})  # no temperature: no dew point
    query = "SELECT toUnixTimestamp64Milli(ts), number FROM telemetry WHERE device = 'house-dew' AND key = 'dew_point'"
    expected = [(ts, dew_point(t, h)) for ts, t, h in readings]
    greenhouse.wait(lambda: greenhouse.rows(f"{query} ORDER BY ts") == expected)
    device.close()

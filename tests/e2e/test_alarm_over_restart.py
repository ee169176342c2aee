"""What was going on when `up` was stopped goes on when it runs again: an alarm, an open window, a command."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from parts.device import Device
from parts.whole import GREENHOUSE, Platform

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SECOND = 1000
WINDOW = 10 * SECOND


def patient_greenhouse(folder: Path) -> Path:
    """The example, whose windows stay open however long `up` is away."""
    app = Path(shutil.copytree(GREENHOUSE, folder / "app"))
    windows = app / "greenhouse" / "windows.py"
    text = windows.read_text()
    assert 'idle="30s"' in text
    windows.write_text(text.replace('idle="30s"', 'idle="600s"'))
    return app


def say_window(device: Device, start: int, seconds: range, temperature: float) -> None:
    for n in seconds:
        device.say({"ts": start + n * SECOND, "values": {"temperature": temperature}})


def alarms(platform: Platform) -> list[tuple[Any, ...]]:
    return platform.rows("SELECT id, device, state, ended_at FROM alarms ORDER BY device, started_at")


def commands(platform: Platform) -> list[tuple[Any, ...]]:
    """Of each command what it does and how it is, by its time."""
    return platform.rows("SELECT device, params, state FROM commands ORDER BY created_at, id")


def test_an_alarm_and_an_open_window_outlive_a_stop(platform: Callable[..., Platform], tmp_path: Path) -> None:
    app = patient_greenhouse(tmp_path)
    start = (int(time.time()) - 600) * SECOND // WINDOW * WINDOW
    first = platform("--app", str(app))
    device = Device(first, "house-1")
    for n in (0, 1):
        say_window(device, start + n * WINDOW, range(10), 31.0)
    say_window(device, start + 2 * WINDOW, range(5), 32.0)  # closes the second window; open at the stop
    first.wait(lambda: commands(first) == [("house-1", '{"on":true}', "SUCCEEDED")])
    ((id, number, state, ended),) = alarms(first)
    assert (number, state, ended) == ("house-1", "active", None)
    device.close()
    waiting = first.command("house-1", "beep")
    assert first.stop() == 0

    again = platform("--app", str(app), data_dir=first.settings.data_dir)
    assert alarms(again) == [(id, "house-1", "active", None)]
    back = Device(again, "house-1")
    assert again.ended(waiting)["state"] == "SUCCEEDED", "a command that waited is sent"
    say_window(back, start + 2 * WINDOW, range(5, 10), 34.0)  # it takes its later points
    say_window(back, start + 3 * WINDOW, range(10), 35.0)  # hot still: not raised again
    say_window(back, start + 4 * WINDOW, range(10), 27.0)
    say_window(back, start + 5 * WINDOW, range(10), 26.0)
    again.wait(lambda: [row[2] for row in alarms(again)] == ["cleared"])
    windows = "SELECT toUnixTimestamp64Milli(start), count, value FROM windows ORDER BY start"
    means = [31.0, 31.0, 33.0, 35.0, 27.0]
    again.wait(lambda: len(again.rows(windows)) == 5)
    assert again.rows(windows) == [(start + n * WINDOW, 10, mean) for n, mean in enumerate(means)]
    again.wait(lambda: [row[1:] for row in commands(again)][2:] == [('{"on":false}', "SUCCEEDED")])
    assert [(row[0], row[2]) for row in commands(again)] == [("house-1", "SUCCEEDED")] * 3
    assert [row[0] for row in alarms(again)] == [id]
    told = [json.loads(one.payload).get("params") for one in back.commands]
    assert told == [None, {"on": False}], "the fan is not told again what it was told"
    back.close()
    assert again.stop() == 0

"""Replay of real files through a real broker: everything, in order, at QoS 1."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pandas as pd
import pytest
from parts.mosquitto import Mosquitto
from vega_datasets import local_data

from tpstream.simulator.csv_messages import csv_file
from tpstream.simulator.replay import Replay

pytestmark = pytest.mark.mosquitto
SEATTLE = Path(local_data.seattle_temps.filepath)


@contextlib.contextmanager
def collected(port: int) -> Iterator[list[mqtt.MQTTMessage]]:
    """What is published below devices/, as it comes; a broker that goes away and comes back is no gap."""
    messages: list[mqtt.MQTTMessage] = []
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="collector", clean_session=False)
    client.on_message = lambda *given: messages.append(given[2])
    client.reconnect_delay_set(1, 1)
    client.connect("127.0.0.1", port)
    client.subscribe("devices/#", qos=1)
    client.loop_start()
    time.sleep(0.2)
    yield messages
    client.disconnect()
    client.loop_stop()


async def until(messages: list[Any], count: int, seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while len(messages) < count:
            await asyncio.sleep(0.02)


def values(message: mqtt.MQTTMessage) -> Any:
    return json.loads(message.payload)["values"]


def tpstream(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tpstream", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_a_year_of_hourly_temperatures(mosquitto: Mosquitto) -> None:
    """Every row once, in order, with its time and value, as pandas reads the same file."""
    expected = pd.read_csv(SEATTLE, parse_dates=["date"])
    with collected(mosquitto.port) as messages:
        options = ["--device", "seattle", "--ts", "date", "--port", mosquitto.port]
        done = await asyncio.to_thread(tpstream, "replay", SEATTLE, *options)
        assert done.returncode == 0, done.stderr
        assert f"{len(expected)} messages of 1 device sent and acknowledged" in done.stdout
        await until(messages, len(expected))
    bodies = [json.loads(message.payload) for message in messages]
    assert {message.topic for message in messages} == {"devices/seattle/telemetry"}
    assert all(message.qos == 1 and not message.retain for message in messages)
    assert [body["values"]["temp"] for body in bodies] == expected["temp"].tolist()
    stamps = expected["date"].astype("datetime64[ms]").astype("int64").tolist()
    assert [body["ts"] for body in bodies] == stamps


async def test_devices_of_a_column_keep_their_order(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("time,who,n\n" + "".join(f"{1_700_000_000 + n},d{n % 7},{n}\n" for n in range(2000)))
    with collected(mosquitto.port) as messages:
        rows = csv_file(path, device="who", ts="time").messages()
        await Replay(rows, "127.0.0.1", mosquitto.port).run()
        await until(messages, 2000)
    for device in range(7):
        topic = f"devices/d{device}/telemetry"
        seen = [values(m)["n"] for m in messages if m.topic == topic]
        assert seen == list(range(device, 2000, 7))


async def test_a_broker_that_goes_away_in_between_costs_nothing(
    new_mosquitto: Callable[..., Mosquitto], tmp_path: Path
) -> None:
    """What was not acknowledged is sent again: all of it, and in order but for the repeats."""
    mosquitto = new_mosquitto()
    path = tmp_path / "long.csv"
    path.write_text("time,n\n" + "".join(f"{1_700_000_000 + n},{n}\n" for n in range(600)))
    said: list[str] = []
    rows = csv_file(path, device="d", ts="time").messages()
    replay = Replay(rows, "127.0.0.1", mosquitto.port, speed=300.0, say=said.append)
    with collected(mosquitto.port) as messages:
        run = asyncio.create_task(replay.run())
        await asyncio.sleep(0.8)
        await asyncio.to_thread(mosquitto.stop)  # orderly, so that the broker itself forgets nothing
        await asyncio.sleep(0.5)
        await asyncio.to_thread(mosquitto.start)
        async with asyncio.timeout(30):
            await run
            while len({values(message)["n"] for message in messages}) < 600:
                await asyncio.sleep(0.05)
    assert len(said) == 2
    assert said[0].startswith("lost MQTT at 127.0.0.1")
    assert said[1].startswith("connected again")
    seen = [values(message)["n"] for message in messages]
    assert list(dict.fromkeys(seen)) == list(range(600))
    assert len(seen) - 600 <= 20 + 20  # at most what was in flight, to the broker and from it


async def test_speed_is_kept(mosquitto: Mosquitto, tmp_path: Path) -> None:
    path = tmp_path / "slow.csv"
    path.write_text("time,n\n" + "".join(f"{1_700_000_000 + n * 10},{n}\n" for n in range(11)))
    started = time.monotonic()
    await Replay(csv_file(path, device="d", ts="time").messages(), "127.0.0.1", mosquitto.port, speed=100.0).run()
    assert 1.0 <= time.monotonic() - started < 1.8


@pytest.mark.parametrize(
    ("text", "options", "code", "line"),
    [
        ("time,t\n1,2\n", ["--ts", "when"], 2, "f.csv:1: no column 'when'; there are time, t"),
        ("time,t\n1,2\n", ["--ts", "time", "--keys", "u"], 2, "f.csv:1: no column 'u'; there are time, t"),
        ("time,t\n1,2\nx,2\n", ["--ts", "time"], 1, "f.csv:3: column 'time': 'x' is no time; write ISO 8601 or"),
        ("time,t\n1,2\n", ["--ts", "time", "--port", "1"], 3, "no MQTT at 127.0.0.1:1"),
        ("time,t\n1,2\n", ["--ts", "time", "--speed", "0"], 2, "invalid value for '--speed'"),
    ],
)
def test_errors_are_one_line_and_nothing_is_sent(
    tmp_path: Path, text: str, options: list[str], code: int, line: str
) -> None:
    path = tmp_path / "f.csv"
    path.write_text(text)
    done = tpstream("replay", path, "--device", "d", *options)
    assert done.returncode == code
    assert done.stderr.replace(f"{tmp_path}/", "").startswith(f"tpstream: {line}")
    assert len(done.stderr.splitlines()) == 1

"""The commands that speak Kafka, as a person or a program uses them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from parts.kafka import Kafka, free_port
from parts.lane import publish

from tpstream.app import App
from tpstream.bus.provision import provision
from tpstream.observability.announce import announce

pytestmark = pytest.mark.kafka

COMMAND = [sys.executable, "-m", "tpstream"]


def environ(kafka: Kafka, **more: Any) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TPSTREAM_")}
    return clean | kafka.settings(**more).environ()


def run(kafka: Kafka, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environ(kafka, **more), capture_output=True, text=True, timeout=60, check=False
    )


def test_devices_are_added_shown_and_removed(kafka: Kafka) -> None:
    assert run(kafka, "devices", "add", "cli-1", "cli-2").stdout == "registered: cli-1, cli-2\n"
    listed = {one["device"]: one for one in json.loads(run(kafka, "devices", "list", "--json").stdout)}
    assert listed["cli-1"]["profile"] == "default"
    created = listed["cli-1"]["created_at"]

    run(kafka, "devices", "add", "cli-1", "--tenant", "acme")
    shown = json.loads(run(kafka, "devices", "show", "cli-1", "--json").stdout)
    assert (shown["tenant"], shown["created_at"]) == ("acme", created)
    assert "cli-1" in run(kafka, "devices", "list").stdout

    assert run(kafka, "devices", "remove", "cli-1", "cli-2").returncode == 0
    gone = run(kafka, "devices", "show", "cli-1")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == "tpstream: device 'cli-1' is not registered; `tpstream devices list` shows who is\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "a/b"), "'a/b' is no device number"),
        (("add", "cli-9", "--profile", "gone"), "profile 'gone' is not in"),
    ],
)
def test_a_device_that_cannot_be_is_refused(kafka: Kafka, arguments: tuple[str, ...], words: str) -> None:
    done = run(kafka, "devices", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "cli-9" not in run(kafka, "devices", "list").stdout


def test_topics_are_listed_with_their_true_ends_and_followed(kafka: Kafka) -> None:
    see_topics(kafka)


@pytest.mark.apache
def test_topics_are_listed_and_followed_on_apache_kafka(apache: Kafka) -> None:
    see_topics(apache)


def see_topics(kafka: Kafka) -> None:
    run(kafka, "devices", "add", *(f"cli-t{n}" for n in range(3)))
    ends = json.loads(run(kafka, "topics", "--json").stdout)
    assert len(ends["tp.uplink.raw.v1"]) == 8
    end = ends["tp.config.devices.v1"]["0"]
    assert re.search(r"^tp\.uplink\.raw\.v1 +8 ", run(kafka, "topics").stdout, re.MULTILINE)

    done = run(kafka, "topics", "--tail", "config.devices", "--last", "2", "--once", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["offset"], r["key"], r["value"]["device"]) for r in records] == [
        (end - 2, "cli-t1", "cli-t1"),
        (end - 1, "cli-t2", "cli-t2"),
    ]
    assert "cli-t2" in run(kafka, "topics", "--tail", "tp.config.devices.v1", "--last", "1", "--once").stdout
    empty = run(kafka, "topics", "--tail", "tp.dlq.v1", "--last", "0", "--once")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "")
    unknown = run(kafka, "topics", "--tail", "gossip")
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "tpstream: there is no topic 'gossip'; `tpstream topics` lists them\n",
    )


@pytest.mark.apache
async def test_topics_of_others_are_listed_and_shown_as_they_are(apache: Kafka) -> None:
    settings, name, app = apache.settings(), "pumps.totals.v1", App()
    users = app.topic(name, bytes, partitions=1), app.topic("_own", bytes, partitions=1)
    await provision(settings, users=users, wait=20)
    values = [b'{"litres": 3}', "drei \u00e4".encode(), b"\x00\xff"]
    now = time.time_ns() // 1_000_000
    await publish(settings, name, [("pump-4", value, now) for value in values])
    await publish(settings, "_own", [("k", b"1", now)])
    consumer = AIOKafkaConsumer("_own", bootstrap_servers=apache.bootstrap, group_id="cli-other")
    await consumer.start()  # has the broker make __consumer_offsets
    await consumer.stop()

    ends = await asyncio.to_thread(lambda: json.loads(run(apache, "topics", "--json").stdout))
    assert (ends[name], ends["_own"]) == ({"0": 3}, {"0": 1})
    assert not [internal for internal in ends if internal.startswith("__")]
    internal = await asyncio.to_thread(run, apache, "topics", "--tail", "__consumer_offsets", "--once")
    assert (internal.returncode, internal.stderr) == (0, "")
    for short in (name, "pumps.totals"):
        tailed = await asyncio.to_thread(run, apache, "topics", "--tail", short, "--once", "--json")
        shown = [json.loads(line) for line in tailed.stdout.splitlines()]
        assert [(one["key"], one["kind"], one["value"]) for one in shown] == [
            ("pump-4", "", {"litres": 3}),
            ("pump-4", "", "drei \u00e4"),
            ("pump-4", "", "0x00ff"),
        ]


def test_following_a_topic_shows_what_comes_and_ends_with_ctrl_c(kafka: Kafka) -> None:
    with subprocess.Popen(
        [*COMMAND, "topics", "--tail", "config.devices", "--last", "0"],
        env=environ(kafka) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl+C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as tail:
        time.sleep(1.5)
        run(kafka, "devices", "add", "cli-follow")
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert "cli-follow" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(10) == 130
        assert tail.stderr.read().strip() == ""


def test_apply_says_what_it_did_and_json_says_it_to_programs(kafka: Kafka, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "app.toml").write_text('name = "cli-app"\n')
    (tmp_path / "profiles/cli.yaml").write_text('name: cli\ndevices: ["cli-p*"]\n')
    assert (
        run(kafka, "apply", "--check", str(tmp_path)).stdout
        == "cli-app: all is well (profiles 1, scripts 0, rules 0, windows 0)\n"
    )
    first = run(kafka, "apply", str(tmp_path))
    assert first.returncode == 0
    assert first.stdout.splitlines()[1:] == ["  + profiles/cli"]
    again = json.loads(run(kafka, "apply", str(tmp_path), "--json").stdout)
    assert (again["nothing"], again["app"]) == (True, "cli-app")

    (tmp_path / "profiles/cli.yaml").write_text("name: cli\ndevice: x\n")
    refused = run(kafka, "apply", str(tmp_path))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"tpstream: {tmp_path}/profiles/cli.yaml:2: field device: is unknown")
    assert refused.stderr.count("\n") == 1


def test_apply_says_where_its_python_does_not_run_or_that_it_does_not_know(kafka: Kafka, tmp_path: Path) -> None:
    folder, data = tmp_path / "app", tmp_path / "data"
    (folder / "cli_python").mkdir(parents=True)
    (folder / "cli_python/__init__.py").write_text("")
    (folder / "app.toml").write_text('name = "cli-python"\npackage = "cli_python"\n')
    done = run(kafka, "apply", str(folder), data_dir=data)
    assert done.returncode == 0
    said = done.stdout.splitlines()[-1]
    assert said.startswith(f"  no running worker is found under {data}, so whether its Python (version ")
    assert "set TPSTREAM_DATA_DIR to the workers' folder" in said
    assert f"`tpstream up --app {folder}`" in said

    announce(data, "process", free_port())  # does not answer
    assert "Python" not in run(kafka, "apply", str(folder), data_dir=data).stdout
    report = tmp_path / "health"
    report.write_text(json.dumps({"ok": True, "life": "00"}))
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            announce(data, "process", port)
            deadline = time.monotonic() + 10
            while "does not run yet in: process; start again with" not in (
                said := run(kafka, "apply", str(folder), data_dir=data).stdout
            ):
                assert time.monotonic() < deadline, said
            told = json.loads(run(kafka, "apply", str(folder), "--json", data_dir=data).stdout)
            assert (told["workers"], told["stale_workers"]) == (["process"], ["process"])
        finally:
            worker.kill()


def test_an_application_without_python_needs_no_worker_to_be_found(kafka: Kafka, tmp_path: Path) -> None:
    (tmp_path / "app.toml").write_text('name = "cli-yaml"\n')
    assert "worker" not in run(kafka, "apply", str(tmp_path)).stdout


@pytest.mark.parametrize("arguments", [("devices", "list"), ("topics",)])
def test_without_kafka_the_remedy_comes_at_once(fresh_kafka: Kafka, arguments: tuple[str, ...]) -> None:
    fresh_kafka.kill()
    began = time.monotonic()
    done = run(fresh_kafka, *arguments)
    assert time.monotonic() - began < 5
    assert done.returncode == 3
    assert done.stderr == (
        f"tpstream: Kafka at {fresh_kafka.bootstrap} is not reachable; "
        "start `tpstream up` or a worker, or set TPSTREAM_KAFKA\n"
    )

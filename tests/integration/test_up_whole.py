"""`tpstream up --simulate` as a newcomer meets it: all parts real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from parts.kafka import free_port

from tpstream.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PORTS = ("MQTT", "KAFKA", "WEB", "STORE", "BRIDGE_WEB", "WORKER_WEB")


class Whole:
    """A running `tpstream up --simulate` and its environment."""

    def __init__(self, data: Path) -> None:
        self.environ = {f"TPSTREAM_{name}_PORT": str(free_port()) for name in PORTS}
        self.environ |= {"TPSTREAM_DATA_DIR": str(data)}
        self.process: subprocess.Popen[str]
        self.said = ""

    def start(self) -> None:
        self.said = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tpstream", "up", "--simulate"],
            cwd=ROOT,
            env=os.environ | self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        deadline = time.monotonic() + 60
        while "Stopping with Ctrl+C" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def shell(self, command: str) -> str:
        done = subprocess.run(
            command, shell=True, cwd=ROOT, env=os.environ | self.environ, capture_output=True, text=True, timeout=40
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def sql(self, query: str) -> str:
        address = f"http://127.0.0.1:{self.environ['TPSTREAM_STORE_PORT']}/"
        with urllib.request.urlopen(urllib.request.Request(address, query.encode()), timeout=10) as answer:
            return str(answer.read().decode().strip())

    def until(self, query: str, wanted: str) -> None:
        deadline = time.monotonic() + 30
        while (found := self.sql(query)) != wanted:
            assert time.monotonic() < deadline, f"{query}: {found}, not {wanted}"
            time.sleep(0.1)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def running(processes: list[psutil.Process]) -> list[int]:
    return [p.pid for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    one = Whole(tmp_path_factory.mktemp("up"))
    one.start()
    yield one
    one.process.kill()
    one.process.wait()


def test_it_says_how_long_it_took_and_its_terminal_is_calm(whole: Whole) -> None:
    took = re.search(r"tpstream is ready \((\d+\.\d) s\)", whole.said)
    assert took is not None
    assert float(took[1]) < 40  # 15 s on a machine that does nothing else
    assert "not well" not in whole.said
    assert len(whole.said.splitlines()) < 40


def test_ready_means_that_every_part_is_well(whole: Whole) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{whole.environ['TPSTREAM_WEB_PORT']}/health", timeout=10) as answer:
        report = json.load(answer)
    parts = {name: entry["ok"] for name, entry in report.items() if isinstance(entry, dict)}
    assert parts == dict.fromkeys(("kafka", "process", "store", "bridge", "worker-store"), True)
    whole.shell(f"{sys.executable} -m tpstream health")


def test_the_page_names_every_port_and_all_that_is_in_the_data_directory(whole: Whole) -> None:
    page = (ROOT / "docs" / "up.md").read_text()
    ports = page.split("Ports are the settings ")[1].split("Unless")[0]
    for name in PORTS:
        assert f"{name}_PORT` ({getattr(Settings(), f'{name.lower()}_port')}" in ports
    table = page.split("## In the data directory")[1].split("## ")[0]
    for entry in Path(whole.environ["TPSTREAM_DATA_DIR"]).iterdir():
        assert f"| `{entry.name}" in table


def test_the_three_commands_that_it_shows_work_as_they_stand(whole: Whole) -> None:
    publish, query, command = (line.strip() for line in whole.said.splitlines() if line.startswith("    "))
    whole.shell(publish)
    whole.until("SELECT number FROM telemetry_latest WHERE device = 'my-first'", "21.5")
    assert "my-first" in whole.shell(query.replace("LIMIT 5", "LIMIT 500"))
    assert "SUCCEEDED" in whole.shell(command)


@pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="shows the other command by itself")
def test_the_publish_without_mosquitto_works_too(whole: Whole) -> None:
    from tpstream.embedded import summary
    from tpstream.settings import Settings

    settings = Settings(mqtt_port=int(whole.environ["TPSTREAM_MQTT_PORT"]))
    text = summary.summary(settings, set(), program="tpstream", publisher=None)
    line = next(line for line in text.splitlines() if "paho" in line)
    whole.shell(line.strip().replace("my-first", "my-second"))
    whole.until("SELECT number FROM telemetry_latest WHERE device = 'my-second'", "21.5")


def test_killed_outright_it_leaves_nothing_and_its_history_is_there_afterwards(whole: Whole) -> None:
    before = int(whole.sql("SELECT count() FROM telemetry"))
    devices = whole.sql("SELECT uniqExact(device) FROM telemetry")
    family = whole.family()
    assert len(family) >= 6
    whole.process.kill()
    whole.process.wait()
    deadline = time.monotonic() + 3
    while left := running(family):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    whole.start()
    assert "records put back" in whole.said
    assert int(whole.sql("SELECT count() FROM telemetry")) >= before
    assert whole.sql("SELECT uniqExact(device) FROM telemetry") == devices


def test_it_stops_in_order_within_its_time(whole: Whole) -> None:
    family = whole.family()
    began = time.monotonic()
    whole.process.send_signal(2)
    assert whole.process.wait(20) == 0
    assert time.monotonic() - began < 11
    assert running(family) == []
    assert "was killed" not in whole.said

"""A real part for tests: the whole of `tpstream up`, on ports and a data folder of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import clickhouse_connect
import psutil
import pytest
from aiokafka import TopicPartition
from parts.kafka import free_port

from tpstream.bus.batch import kind_of
from tpstream.bus.envelope import Kind
from tpstream.bus.reader import read_to_end
from tpstream.bus.topics import Topic
from tpstream.cli.up import load
from tpstream.embedded.child import die_with_parent
from tpstream.settings import PREFIX

PARTS = {
    "bridge": "tpstream bridge",
    "worker": "--roles process",
    "worker-store": "--roles store",
    "store": "tpstream.embedded.store",
    "kafka": "tansu",
}
"""What the command line of each part has in it."""

APACHE = "kafka.Kafka"
"""In place of that of `kafka`, with `--kafka apache`."""

GREENHOUSE = Path(__file__).resolve().parents[2] / "examples" / "greenhouse"

V = TypeVar("V")


def _name(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower()


class Platform:
    """A running `tpstream up`: its settings, its output, its parts, and what its store shows."""

    def __init__(self, data_dir: Path, *arguments: str, **overrides: Any) -> None:
        names = ("mqtt_port", "kafka_port", "web_port", "store_port", "bridge_web_port", "worker_web_port")
        given: dict[str, Any] = {name: free_port() for name in names} | {"data_dir": data_dir} | overrides
        kafka = arguments[arguments.index("--kafka") + 1] if "--kafka" in arguments else None
        self.settings = load(kafka, {}, **given)
        self._marks = PARTS | ({"kafka": APACHE} if kafka == "apache" else {})
        self._given = {name: text for name, text in self.settings.environ().items() if _name(name) in given}
        self.arguments = arguments
        self.output = data_dir / "up.out"
        self.process: subprocess.Popen[bytes]

    def start(self, patience: float = 60.0) -> None:
        """Start it and wait until it says that it is ready."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tpstream", "up", *self.arguments],
                env={**os.environ, **self._given},
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(os.getpid()),
            )
        self.wait(lambda: "tpstream is ready" in self.output.read_text(), patience)

    def stop(self, patience: float = 15.0) -> int:
        """Ctrl+C, and wait; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(patience)

    def kill(self) -> None:
        """SIGKILL, where a test did not stop it itself."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def part(self, name: str) -> psutil.Process:
        """The process of a part as it is now."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            if self._marks[name] in " ".join(child.cmdline()):
                return child
        raise LookupError(f"{name} does not run")

    def restart_part(self, name: str, patience: float = 30.0) -> None:
        """SIGTERM a part and wait until its successor runs."""
        before = self.part(name)
        before.terminate()
        self.wait(lambda: self._successor(name, before.pid), patience)

    def _successor(self, name: str, pid: int) -> bool:
        try:
            return self.part(name).pid != pid
        except (LookupError, psutil.Error):
            return False

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What a query to the store returns; none while the store is away."""
        try:
            client = clickhouse_connect.get_client(
                host=self.settings.host, port=self.settings.store_port, autogenerate_session_id=False
            )
            try:
                return list(client.query(query).result_rows)
            finally:
                client.close()
        except Exception:
            return []

    def api(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A request to the web port; status and JSON answer."""
        url = f"http://{self.settings.host}:{self.settings.web_port}{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def command(self, device: str, method: str, **body: Any) -> str:
        """Send a device a command over REST; its id."""
        status, answer = self.api("POST", f"/api/v1/devices/{device}/commands", {"method": method, **body})
        assert status == 202, answer
        return str(answer["id"])

    def ended(self, id: str, patience: float = 15.0) -> dict[str, Any]:
        """A command once it has ended, as REST shows it."""
        found: list[dict[str, Any]] = []

        def over() -> bool:
            status, answer = self.api("GET", f"/api/v1/commands/{id}")
            if status == 200 and answer["state"] not in ("QUEUED", "ENCODED", "SENT", "DELIVERED"):
                found.append(answer)
            return bool(found)

        self.wait(over, patience)
        return found[0]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `tpstream` command line with this platform's settings."""
        return subprocess.run(
            [sys.executable, "-m", "tpstream", *arguments],
            env={**os.environ, **self.settings.environ()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def records(self, topic: Topic[V]) -> list[V]:
        """All that is in a topic, decoded; configuration and ticks are passed over."""
        return asyncio.run(self._records(topic))

    async def _records(self, topic: Topic[V]) -> list[V]:
        places = {
            TopicPartition(topic.name, number): 0
            for number in range(self.settings.partitions if topic.by_device else 1)
        }
        return [
            topic.decode(record.value)
            async for _, some in read_to_end(self.settings.bootstrap, places)
            for record in some
            if record.value and kind_of(record) is Kind.PUBLISH
        ]

    def wait(self, condition: Callable[[], Any], patience: float = 30.0) -> None:
        """Until the condition holds; fails with the output and the last lines of each log."""
        end = time.monotonic() + patience
        while not condition():
            if time.monotonic() > end or self.process.poll() is not None:
                logs = [f"== {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-8:])
                        for p in sorted((self.settings.data_dir / "log").glob("*.log"))]  # fmt: skip
                pytest.fail("\n".join(["`tpstream up` did not get there:", self.output.read_text(), *logs]))
            time.sleep(0.1)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Callable[..., Platform]]:
    """Makes a platform from arguments of `up` and settings, started; all are gone at the end."""
    made: list[Platform] = []

    def make(*arguments: str, data_dir: Path | None = None, **overrides: Any) -> Platform:
        one = Platform(data_dir or tmp_path / f"var{len(made)}", *arguments, **overrides)
        made.append(one)
        one.start()
        return one

    yield make
    for one in made:
        one.kill()


@contextmanager
def started(data_dir: Path, *arguments: str) -> Iterator[Platform]:
    """A platform that runs, and afterwards stops in order."""
    one = Platform(data_dir, *arguments)
    try:
        one.start()
        yield one
        assert one.stop() == 0
    finally:
        one.kill()


@pytest.fixture(scope="module")
def greenhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform with the example's application for all tests of a file; use device numbers of your own."""
    with started(tmp_path_factory.mktemp("greenhouse"), "--app", str(GREENHOUSE)) as one:
        yield one

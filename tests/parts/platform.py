"""A real part for tests: the whole of `tpstream up`, on ports and a data folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
import pytest
from parts.kafka import free_port

from tpstream.embedded.child import die_with_parent
from tpstream.settings import Settings

PARTS = {
    "bridge": "tpstream bridge",
    "worker": "--roles process",
    "worker-store": "--roles store",
    "store": "tpstream.embedded.store",
    "kafka": "tansu",
}
"""What the command line of each part has in it."""


class Platform:
    """A running `tpstream up`: its settings, its output, its parts, and what its store shows."""

    def __init__(self, data_dir: Path, *arguments: str, **overrides: Any) -> None:
        names = ("mqtt_port", "kafka_port", "web_port", "store_port", "bridge_web_port", "worker_web_port")
        self.settings = Settings(**({name: free_port() for name in names} | {"data_dir": data_dir} | overrides))
        self.arguments = arguments
        self.output = data_dir / "up.out"
        self.process: subprocess.Popen[bytes]

    def start(self, patience: float = 60.0) -> None:
        """Start it and wait until it says that it is ready."""
        defaults = Settings().environ()
        own = {name: value for name, value in self.settings.environ().items() if value != defaults[name]}
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tpstream", "up", *self.arguments],
                env={**os.environ, **own},
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
            if PARTS[name] in " ".join(child.cmdline()):
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

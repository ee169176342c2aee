"""Real parts for tests: Kafka brokers, provisioned.

`kafka` is one broker for the whole run; `fresh_kafka` is one of a test's own, to be broken. Both are
the embedded one, or Apache Kafka with `pytest --kafka apache`. `apache` and `fresh_apache` are
always Apache Kafka: for what the embedded broker cannot show (several workers, rebalances, restarts).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tpstream.bus.position import Life
from tpstream.bus.provision import provision
from tpstream.embedded import apache as real
from tpstream.embedded import kafka as embedded
from tpstream.embedded.child import die_with_parent
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings


def free_port() -> int:
    """A port that nobody has at the moment, and that no outgoing connection will be given (those begin at 32768)."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Kafka(ABC):
    """A running broker: `bootstrap`, `settings(**overrides)`, `process`, `life`."""

    forgets: bool
    """Whether its records are gone when it ends."""

    def __init__(self, new_dir: Callable[[], Path]) -> None:
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes]
        self.life: Life
        self._new_dir = new_dir

    def settings(self, **overrides: Any) -> Settings:
        """Settings for this broker with a data folder and free ports of their own."""
        ports = ("mqtt_port", "web_port", "store_port", "bridge_web_port", "worker_web_port")
        values: dict[str, Any] = {name: free_port() for name in ports}
        values |= {"kafka_port": self.port, "session_timeout": 3.0} | overrides
        values.setdefault("data_dir", self._new_dir())
        return Settings(**values)

    @abstractmethod
    def start(self, **overrides: Any) -> None:
        """Start its process and return when it serves, with all topics; `overrides` are settings for these."""

    @abstractmethod
    def new_life(self) -> None:
        """Kill it and start it again on the same port, empty."""

    def _begin(self, command: list[str], log: Path | None = None, **environ: str) -> None:
        with (log or Path(os.devnull)).open("ab") as out:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **environ},
                stdout=out,
                stderr=out,
                preexec_fn=die_with_parent(os.getpid()),
                start_new_session=True,
            )

    def _provision(self, *, fresh: bool, **overrides: Any) -> None:
        work = provision(self.settings(**overrides), wait=20, fresh=fresh)
        with ThreadPoolExecutor(1) as pool:  # a test's event loop may be running here
            self.life = pool.submit(asyncio.run, work).result()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT after `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL. The embedded broker's memory, and so this life, is gone; Apache Kafka has it on disk."""
        self.process.kill()
        self.process.wait()

    def restart(self, seconds_away: float = 0.0) -> None:
        """SIGKILL it and start it again on the same port; the embedded broker begins a new life."""
        self.kill()
        time.sleep(seconds_away)
        self.start()


class Embedded(Kafka):
    """The embedded broker: in memory, empty at each start."""

    forgets = True

    def start(self, **overrides: Any) -> None:
        self._begin(embedded.command("127.0.0.1", self.port))
        self._provision(fresh=True, **overrides)

    def new_life(self) -> None:
        self.restart()


class Apache(Kafka):
    """Apache Kafka: everything is in `folder` and survives `restart`; its own log is `folder`/log."""

    forgets = False

    def __init__(self, new_dir: Callable[[], Path]) -> None:
        super().__init__(new_dir)
        self.folder = new_dir()
        self._broker = real.Apache(self.folder, "127.0.0.1", self.port)

    def start(self, **overrides: Any) -> None:
        # The quick compiler alone: half the CPU for a broker that lives for seconds.
        self._begin(self._broker.command(), self.folder / "log", JDK_JAVA_OPTIONS="-XX:TieredStopAtLevel=1")
        deadline = time.monotonic() + 60
        with ThreadPoolExecutor(1) as pool:
            while not pool.submit(asyncio.run, real.serves(self.bootstrap)).result():
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
        self._provision(fresh=False, **overrides)

    def stop(self) -> None:
        """SIGTERM, and wait for its orderly end."""
        self.process.terminate()
        self.process.wait(30)

    def new_life(self) -> None:
        self.kill()
        shutil.rmtree(self.folder / "data")
        self.start()


def _started(kind: type[Kafka], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    if kind is Apache:
        try:
            real.Apache(Path(), "127.0.0.1", 0).check()
        except ConfigurationError as error:
            pytest.skip(f"needs Apache Kafka: {error}")
    broker = kind(lambda: tmp_path_factory.mktemp("data"))
    try:
        broker.start()
        yield broker
    finally:
        broker.kill()


def _chosen(request: pytest.FixtureRequest) -> type[Kafka]:
    return Apache if request.config.getoption("--kafka") == "apache" else Embedded


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One broker for the whole run. Use device numbers and groups of your own; do not break it."""
    yield from _started(_chosen(request), tmp_path_factory)


@pytest.fixture
def fresh_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker of the test's own: pause, kill and restart it as you like."""
    yield from _started(_chosen(request), tmp_path_factory)


@pytest.fixture
def fresh_embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """An embedded broker of the test's own, for what only that one does."""
    yield from _started(Embedded, tmp_path_factory)


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One Apache Kafka for the whole run, as `kafka`."""
    yield from _started(Apache, tmp_path_factory)


@pytest.fixture
def fresh_apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """An Apache Kafka of the test's own, as `fresh_kafka`; `restart` keeps everything."""
    yield from _started(Apache, tmp_path_factory)

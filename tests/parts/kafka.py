"""A real part for tests: the embedded Kafka-protocol broker, provisioned.

`kafka` is one broker for the whole run; `fresh_kafka` is one of a test's own, to be broken.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tpstream.bus.position import Life
from tpstream.bus.provision import provision
from tpstream.embedded import kafka as embedded
from tpstream.embedded.child import die_with_parent
from tpstream.settings import Settings


def free_port() -> int:
    """A port that nobody has at the moment, and that no outgoing connection will be given (those begin at 32768)."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Kafka:
    """A running broker: `bootstrap`, `settings(**overrides)`, `process`, `life`."""

    def __init__(self, new_dir: Callable[[], Path]) -> None:
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes]
        self.life: Life
        self._new_dir = new_dir
        self.start()

    def settings(self, **overrides: Any) -> Settings:
        """Settings for this broker with a data folder and free ports of their own."""
        ports = ("mqtt_port", "web_port", "store_port", "bridge_web_port", "worker_web_port")
        values: dict[str, Any] = {name: free_port() for name in ports}
        values |= {"kafka_port": self.port, "session_timeout": 3.0} | overrides
        values.setdefault("data_dir", self._new_dir())
        return Settings(**values)

    def start(self, **overrides: Any) -> None:
        """Start it, empty, and provision it: a new life."""
        self.process = subprocess.Popen(
            embedded.command("127.0.0.1", self.port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(os.getpid()),
        )
        work = provision(self.settings(**overrides), wait=20, fresh=True)
        with ThreadPoolExecutor(1) as pool:  # a test's event loop may be running here
            self.life = pool.submit(asyncio.run, work).result()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT after `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: its memory, and so this life, is gone."""
        self.process.kill()
        self.process.wait()

    def restart(self, seconds_away: float = 0.0) -> None:
        """Kill it and start it again on the same port: a new life."""
        self.kill()
        time.sleep(seconds_away)
        self.start()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One broker for the whole run. Use device numbers and groups of your own; do not break it."""
    broker = Kafka(lambda: tmp_path_factory.mktemp("data"))
    yield broker
    broker.kill()


@pytest.fixture
def fresh_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker of the test's own: pause, kill and restart it as you like."""
    broker = Kafka(lambda: tmp_path_factory.mktemp("data"))
    yield broker
    broker.kill()

"""A real part for tests: mosquitto, on a free port, with a configuration of the test's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from parts.kafka import free_port

from tpstream.embedded.child import die_with_parent

PERSISTENT = """
persistence true
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 1000
allow_anonymous true
"""
"""What the way in `broker` wants of a mosquitto, so that it drops nothing while the bridge is away."""


def program(name: str = "mosquitto") -> str:
    """Where a program of mosquitto's is; skips the test if it is not installed."""
    package = "mosquitto" if name == "mosquitto" else "mosquitto-clients"
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


class Mosquitto:
    """A running broker: `port`, `process`; `stop` and `start` it as you like, it keeps its data."""

    def __init__(self, folder: Path, config: str = PERSISTENT) -> None:
        self.port = free_port()
        self.folder = folder
        self._file = folder / "mosquitto.conf"
        place = f"persistence_location {folder}/\n" if "persistence true" in config else ""
        # Run by root it would become another user, who may not write here.
        user = "user root\n" if os.geteuid() == 0 else ""
        self._file.write_text(f"listener {self.port} 127.0.0.1\n{user}{place}{config}")
        self.process: subprocess.Popen[bytes]
        self.start()

    @property
    def url(self) -> str:
        """Its address, as TPSTREAM_BROKER_URL wants it."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        self.process = subprocess.Popen(
            [program(), "-c", str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent(os.getpid()),
        )
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"mosquitto did not start with {self._file}")

    def stop(self) -> None:
        """SIGTERM: it saves what it has."""
        self.process.terminate()
        self.process.wait(5)


@pytest.fixture
def new_mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Mosquitto]]:
    """Makes brokers: `new_mosquitto(config)`."""
    made: list[Mosquitto] = []

    def make(config: str = PERSISTENT) -> Mosquitto:
        made.append(Mosquitto(tmp_path_factory.mktemp("mosquitto"), config))
        return made[-1]

    program()
    yield make
    for broker in made:
        broker.process.kill()
        broker.process.wait()


@pytest.fixture
def mosquitto(new_mosquitto: Callable[..., Mosquitto]) -> Mosquitto:
    """A broker that anybody may use and that drops nothing."""
    return new_mosquitto()

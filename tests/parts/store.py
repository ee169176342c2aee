"""A real part for tests: the embedded store, as a process of its own on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest

from tpstream.settings import Settings


class StorePart:
    """The embedded store in a folder. It can be stopped, killed and started again on its port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def settings(self, **overrides: Any) -> Settings:
        """Settings that lead to this store."""
        return Settings(**{"store_port": self.port, "data_dir": self.folder, **overrides})

    def client(self, **options: Any) -> Any:
        """A client of clickhouse-connect, as a BI tool has it."""
        return clickhouse_connect.get_client(host="127.0.0.1", port=self.port, **options)

    @property
    def url(self) -> str:
        """The address of the HTTP interface."""
        return f"http://127.0.0.1:{self.port}/"

    def spawn(self) -> subprocess.Popen[str]:
        """Start the process without waiting for it."""
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TPSTREAM_")}
        environ |= self.settings().environ()
        return subprocess.Popen(
            [sys.executable, "-m", "tpstream.embedded.store"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = self.spawn()
        until = time.monotonic() + 30
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise AssertionError(f"the store ended: {self.process.communicate()[0]}")
            try:
                urllib.request.urlopen(self.url + "ping", timeout=2).read()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the store did not answer in 30 s")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        if self.process.stdout:
            self.process.stdout.close()
        return code


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorePart]:
    """One store for the whole session; tests use tables or ids of their own."""
    part = StorePart(tmp_path_factory.mktemp("store"))
    part.start()
    yield part
    part.stop()


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[StorePart]:
    """A store for one test, to be stopped or killed by it."""
    part = StorePart(tmp_path)
    part.start()
    yield part
    if part.process is not None and part.process.poll() is None:
        part.stop(signal.SIGKILL)

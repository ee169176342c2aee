"""A `tpstream up` of one's own for a measurement: free ports, a fresh data directory, CPU by part."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

import msgspec
import psutil

APPLICATION = Path(__file__).parent / "application"
PORTS = ("MQTT_PORT", "KAFKA_PORT", "WEB_PORT", "STORE_PORT", "BRIDGE_WEB_PORT", "WORKER_WEB_PORT")
READY_SECONDS, STOP_SECONDS = 90.0, 30.0


class Platform:
    """`with Platform() as platform:` starts it and waits until /health is 200; leaving stops it.

    Raises RuntimeError, with the last lines it said, if it does not become well.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tpstream-bench-"))
        self.ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.log = self.folder / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Platform:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TPSTREAM_")}
        environ |= {f"TPSTREAM_{name}": str(port) for name, port in self.ports.items()}
        command = [sys.executable, "-m", "tpstream", "up", "--app", str(APPLICATION)]
        command += ["--data-dir", str(self.folder / "var")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            self._wait_until_well()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop()
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            print(f"logs are kept in {self.folder}", file=sys.stderr)

    def health(self) -> tuple[int, dict[str, object]]:
        """Status and body of /health; (0, {}) where nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.web}/health", timeout=5) as answer:
                return answer.status, msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, msgspec.json.decode(error.read() or b"{}")
        except (OSError, msgspec.DecodeError):
            return 0, {}

    @property
    def web(self) -> str:
        """The web port's address."""
        return f"http://127.0.0.1:{self.ports['WEB_PORT']}"

    @property
    def store(self) -> str:
        """The store's address."""
        return f"http://127.0.0.1:{self.ports['STORE_PORT']}"

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each part so far."""
        assert self.process is not None
        up = psutil.Process(self.process.pid)
        seconds: dict[str, float] = {}
        for process in [up, *up.children(recursive=True)]:
            try:
                times = process.cpu_times()
                name = "up" if process.pid == up.pid else part_of(process.cmdline())
            except psutil.Error:
                continue
            seconds[name] = seconds.get(name, 0.0) + times.user + times.system
        return seconds

    def memory_mb(self) -> dict[str, float]:
        """Resident memory of each part."""
        assert self.process is not None
        found: dict[str, float] = {}
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                name, size = part_of(process.cmdline()), process.memory_info().rss / 1e6
            except psutil.Error:
                continue
            found[name] = round(found.get(name, 0.0) + size, 1)
        return found

    def _wait_until_well(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + READY_SECONDS
        while (status := self.health()[0]) != 200:
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = " | ".join(self.log.read_text(errors="replace").splitlines()[-8:])
                raise RuntimeError(f"`tpstream up` is not well (/health {status or 'silent'}): {tail}")
            time.sleep(0.2)

    def _stop(self) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def part_of(command: list[str]) -> str:
    """The part that a process is, by its command line."""
    words = " ".join(command)
    for name, sign in (
        ("kafka", "tansu"),
        ("store", "tpstream.embedded.store"),
        ("bridge", "tpstream bridge"),
        ("worker-store", "worker --roles store"),
        ("worker", "worker --roles process"),
    ):
        if sign in words:
            return name
    return "other"


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports

"""`tpstream up` as a process, with stand-ins for its parts but the real broker; fixture `up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parts import stand_in_up
from parts.kafka import free_port

PARTS = ("store", "kafka", "bridge", "worker", "worker-store", "simulator")


class Up:
    """A running `up`: what it said, and what happened to its parts."""

    def __init__(self, folder: Path, options: tuple[str, ...], settings: dict[str, Any]) -> None:
        self.data = folder / "data"
        self._events = folder / f"events-{time.time_ns()}"
        ports = ("mqtt", "kafka", "web", "store", "bridge_web", "worker_web")
        environ = {f"TPSTREAM_{name.upper()}_PORT": str(free_port()) for name in ports}
        environ |= {"TPSTREAM_DATA_DIR": str(self.data)}
        self.environ = environ | {f"TPSTREAM_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-P", stand_in_up.__file__, str(self._events), *options],
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def events(self) -> list[tuple[str, str, int]]:
        if not self._events.exists():
            return []
        return [tuple(json.loads(line)[:3]) for line in self._events.read_text().splitlines()]

    def of(self, what: str) -> list[str]:
        return [name for name, happened, _ in self.events() if happened == what]

    def until(self, true: Callable[[], Any], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited in vain; said:\n{self.said}\nhappened: {self.events()}"
            time.sleep(0.02)

    def until_ready(self) -> None:
        self.until(lambda: "tpstream is ready" in self.said)

    def pids(self) -> dict[str, int]:
        """The processes that run, by part; the broker is known by its port."""
        running = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode().split("\0")
                    dead = not alive(int(entry.name))
                except OSError:
                    continue
                if str(self._events) in words and any(word.endswith("stand_in.py") for word in words) and not dead:
                    running[words[words.index(str(self._events)) - 2]] = int(entry.name)
                elif f"tcp://127.0.0.1:{self.environ['TPSTREAM_KAFKA_PORT']}" in words and not dead:
                    running["kafka"] = int(entry.name)
        return running

    def end(self, seconds: float = 15) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        return code

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


def state(pid: int) -> str:
    """A letter of proc(5): `T` stopped, `Z` ended and not reaped yet; empty: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether it runs, or could."""
    return state(pid) not in ("", "Z")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    running: list[Up] = []

    def begin(*options: str, **settings: Any) -> Up:
        running.append(Up(tmp_path, options, settings))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.wait()

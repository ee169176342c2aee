"""Run a contender in a process of its own on one core, and measure it from outside.

A contender says on its standard output how many messages it has processed so far, a number on a
line, every tenth of a second or so. CPU is read from /proc, of the process and its children, at these
lines; the figure is of the messages between the first line past the warm-up and the last, so start-up
and a compiler's warm-up are not in it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from benchmarks.cores import SUBJECT, load, pin
from tpstream.embedded.child import die_with_parent

STOP_SECONDS = 30.0
QUIET_SECONDS = 120.0
"""A contender that says nothing for so long has failed."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Measured(msgspec.Struct, frozen=True):
    """What a contender needed. `messages`: those that the figure is of."""

    cpu_us: float
    rate: float
    messages: int
    seconds: float
    rss_mb: float
    load: float


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process and its children, living and reaped."""
    total = 0
    try:
        members = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.Error:
        return 0.0
    for one in members:
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / _TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    found = 0.0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            found += process.memory_info().rss / 1e6
        except psutil.Error:
            continue
    return found


class Subject:
    """`with Subject(command, log) as subject:` starts it; leaving stops it (SIGTERM, then SIGKILL)."""

    def __init__(
        self, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None, cores: set[int] = SUBJECT
    ) -> None:
        self.command = command
        self.log = log
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("TPSTREAM_")} | dict(environ or {})
        self.cores = cores
        self.process: subprocess.Popen[bytes]
        self._lines: queue.Queue[int | None] = queue.Queue()

    def __enter__(self) -> Subject:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environ,
                preexec_fn=pin(self.cores, die_with_parent(os.getpid())),
            )
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip().isdigit():
                self._lines.put(int(line))
        self._lines.put(None)

    def next(self, patience: float = QUIET_SECONDS) -> int:
        """The next number that it says. Raises RuntimeError where it ends or is silent."""
        try:
            while (said := self._lines.get(timeout=patience)) is not None:
                return said
        except queue.Empty:
            raise RuntimeError(f"{self._name} said nothing for {patience:.0f} s{self._tail()}") from None
        raise RuntimeError(f"{self._name} ended with code {self.process.wait()}{self._tail()}")

    def newest(self, before: int) -> int:
        """The last number that it has said by now; `before` where it has said none since."""
        with contextlib.suppress(queue.Empty):
            while (said := self._lines.get_nowait()) is not None:
                before = said
        return before

    def measure(self, count: int, warm: float = 0.1) -> Measured:
        """Until it has processed `count`; of the messages after the first `warm` of them."""
        pid = self.process.pid
        first: tuple[int, float, float] | None = None
        while (seen := self.next()) < count * warm:
            pass
        first = (seen, time.monotonic(), cpu_seconds(pid))
        while seen < count:
            seen = self.next()
        wall, cpu = time.monotonic() - first[1], cpu_seconds(pid) - first[2]
        messages = seen - first[0]
        if messages <= 0 or wall <= 0:
            raise RuntimeError(f"{self._name} was through before it could be measured")
        return Measured(
            round(cpu / messages * 1e6, 2), round(messages / wall), messages, round(wall, 1), round(rss_mb(pid)), load()
        )

    @property
    def _name(self) -> str:
        return " ".join(Path(word).name for word in self.command[:3])

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f": {' | '.join(lines[-3:])}" if lines else ""

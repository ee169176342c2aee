"""A child process in a session of its own, which dies with us and tells when it has ended."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import BinaryIO

from tpstream.embedded.child import die_with_parent


class Process:
    """A running child. `ended` is done with its return code once it is gone.

    Its own session keeps the terminal's Ctrl+C from it; a pidfd tells of its end without a thread.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: BinaryIO) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        self._popen = subprocess.Popen(
            list(command),
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),
        )
        self.pid = self._popen.pid
        self._watched = os.pidfd_open(self.pid)
        loop.add_reader(self._watched, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watched)
        os.close(self._watched)
        # Before it is reaped its id is still its own: take along what it may have left behind.
        self._signal_group(SIGKILL)
        code = self._popen.wait()
        if not self.ended.done():
            self.ended.set_result(code)

    async def wait(self) -> int:
        """Its return code, once it has ended."""
        return await asyncio.shield(self.ended)

    def signal(self, number: Signals) -> None:
        """Send it a signal, if it is still there."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it and all of its session."""
        if not self.ended.done():
            self._signal_group(SIGKILL)

    def _signal_group(self, number: Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def stop(self, seconds: float, number: Signals = SIGTERM) -> bool:
        """Ask it to end (also when it is paused) and kill it after `seconds`; False: had to be killed."""
        self.signal(number)
        self.signal(SIGCONT)
        try:
            await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            self.kill()
            await self.wait()
            return False
        return True

    def memory(self) -> int:
        """Its resident memory in bytes; 0 once it is gone."""
        with suppress(OSError, ValueError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

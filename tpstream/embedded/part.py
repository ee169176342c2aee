"""A part of `tpstream up`: what is run, how one sees that it is ready, and how it stops."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tpstream.errors import TpstreamError

Ready = Callable[[int], Awaitable[bool]]
"""Whether the process of that id can do its work."""

Lag = Callable[[int], Awaitable[float | None]]
"""How many records the process of that id has still to work off; None: it does not say."""


async def at_once(pid: int) -> bool:
    """For a part that has nothing to be ready for."""
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process. `share` is its part of the time for an orderly stop, relative to the others'."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    ready: Ready = at_once
    lag: Lag | None = None
    share: float = 1.0
    stop_signal: signal.Signals = signal.SIGTERM
    forgets: bool = False
    """Whether what it holds is lost when it ends: it is worked off before, and put back after."""
    where: str = ""
    """For people: its address."""


class PartFailed(TpstreamError):
    """A part keeps dying, or cannot start. `tail`: its last log lines; `code`: for our own exit."""

    def __init__(self, message: str, tail: Sequence[str] = (), code: int = 1) -> None:
        super().__init__(message)
        self.tail = list(tail)
        self.code = code


def how(returncode: int) -> str:
    """How a process ended, for people: `exit code 3`, `killed by SIGKILL`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"

"""What a child process of ours promises at its birth: to die with the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(parent: int) -> Callable[[], None]:
    """A `preexec_fn`: Linux kills the child when the thread that starts it ends, however it ends.

    `parent` is the starter's process id: it may have died before the promise was made.
    Must be used from the main thread, as the death signal follows the thread.
    """

    def promise() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return promise

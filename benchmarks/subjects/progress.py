"""What every contender in Python says on its standard output: how many messages it has processed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

EVERY_SECONDS = 0.1


class Progress:
    """Counts, and says so every tenth of a second from a thread of its own."""

    def __init__(self, seen: Callable[[], int] | None = None) -> None:
        """`seen` counts elsewhere; without it, `add` counts here."""
        self.count = 0
        self._seen = seen or (lambda: self.count)
        threading.Thread(target=self._say, daemon=True).start()

    def _say(self) -> None:
        said = 0
        while True:
            time.sleep(EVERY_SECONDS)
            if (seen := self._seen()) > said:
                said = seen
                sys.stdout.write(f"{seen}\n")
                sys.stdout.flush()

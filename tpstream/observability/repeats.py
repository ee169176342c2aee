"""A line that a process repeats comes once in a while, with how often it was repeated.

While a broker is away its clients say so tens of thousands of times (80,000 lines in ten minutes, seen).
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable

SECONDS = 30.0
"""A line comes at most once within so many seconds."""
MOST = 1_000
"""Different lines that are remembered."""

Key = tuple[str, int, str]


class Repeats(logging.Filter):
    """Lets a line through once in `seconds`, and with the next one says how many were kept back.

    Lines of a library are the same if their template is: the numbers in them change with each
    connection. Our own are the same only if their text is.
    """

    def __init__(self, seconds: float = SECONDS, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._lines: OrderedDict[Key, tuple[float, int]] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is let through; it then has in it how often it was kept back before."""
        now, key = self._clock(), _key(record)
        came, kept = self._lines.get(key, (None, 0))
        if came is not None and now - came < self._seconds:
            self._lines[key] = came, kept + 1
            return False
        self._lines[key] = now, 0
        self._lines.move_to_end(key)
        if len(self._lines) > MOST:
            self._lines.popitem(last=False)
        if kept and came is not None:
            record.msg = f"{_text(record)} (and {kept} more like it in the last {now - came:.0f} s)"
            record.args = ()
        return True


def _key(record: logging.LogRecord) -> Key:
    own = record.name.split(".", 1)[0] in ("tpstream", "connectors", "agents", "tables")
    error = record.exc_info[1] if own and record.exc_info else ""
    return record.name, record.levelno, f"{_text(record)}{error}" if own else str(record.msg)


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # values that do not fit the template: the handler says so
        return str(record.msg)

"""Logging: one calm line per event, level from `TPSTREAM_LOG` (default info).

2026-03-01 12:00:00.000 info  lane            windows: 8 partitions assigned
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tpstream.errors import ConfigurationError
from tpstream.observability.repeats import Repeats

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_NOISE = {
    # What these say at info is about themselves; what concerns us comes as warnings.
    "aiokafka": logging.ERROR,
    "aiokafka.consumer.group_coordinator": logging.ERROR,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    "clickhouse_connect": logging.WARNING,
    "urllib3": logging.WARNING,
    "venusian": logging.WARNING,
}


class Line(logging.Formatter):
    """Time (UTC, ms), level, the part, and the message; a traceback only at level debug."""

    def __init__(self, traces: bool) -> None:
        super().__init__()
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
        part = record.name.removeprefix("tpstream.").rsplit(".", 1)[-1]
        message = record.getMessage().replace("\n", " ⏎ ")
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            message += f" ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname.lower():7} {part:15} {message}"
        if self._traces and record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(environ: Mapping[str, str] | None = None, stream: TextIO | None = None) -> None:
    """Log to `stream` (default stderr). Raises ConfigurationError where TPSTREAM_LOG is no level.

    Called once by the command line, before Faust: Faust's worker is told not to touch logging.
    """
    environ = os.environ if environ is None else environ
    name = environ.get("TPSTREAM_LOG", "info").strip().lower()
    level = LEVELS.get("warning" if name == "warn" else name)
    if level is None:
        raise ConfigurationError(f"TPSTREAM_LOG={name!r} is no level; one of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Line(traces=level == logging.DEBUG))
    if level > logging.DEBUG:
        handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for noisy, least in _NOISE.items():
        logging.getLogger(noisy).setLevel(logging.DEBUG if level == logging.DEBUG else least)

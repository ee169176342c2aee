"""The errors that parts of tpstream raise to one another.

Which class an error has decides what happens to the records in hand: `Unavailable` waits
for ever, anything else is the handler's own fault and ends, at the worst, in a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TpstreamError(Exception):
    """Something a person can mend: `str(error)` is one line with what, where and the remedy."""


class ConfigurationError(TpstreamError):
    """A setting, file or definition is wrong. The command line exits with 2."""


class Unavailable(TpstreamError):
    """A part is away (connection, time-out, back-pressure, full disk). Retry with backoff, for ever."""


class Full(TpstreamError):
    """A sink is at its bound. Flush it, then add again; nothing was taken."""


class Rejected(TpstreamError):
    """Rows that a sink will never take. They become dead letters; the rest was taken."""

    def __init__(self, message: str, rows: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.rows = rows

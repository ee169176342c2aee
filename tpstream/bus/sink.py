"""The sink: where results go, and how the checkpoint knows that they are durable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tpstream.bus.position import Position


class Sink(Protocol):
    """A topic, the store, a webhook: all take rows in memory and make them durable when asked."""

    name: str

    @property
    def pending(self) -> int:
        """Rows in memory: added and not yet durable. At TPSTREAM_STORE_ROWS a checkpoint comes at once."""
        ...

    def add(self, rows: Any, positions: Sequence[Position]) -> None:
        """Take rows into memory. Raises Full at the bound; then nothing was taken."""

    async def flush(self) -> None:
        """Return when all that was added before the call is durable; may be repeated.

        Raises Unavailable (nothing is forgotten, call again) or Rejected with the rows that
        will never be taken; the others are durable then.
        """

    async def close(self) -> None:
        """Release what the sink holds. What was not flushed is dropped."""


class Outlet(Sink, Protocol):
    """The sink of the records that agents send."""

    def add(self, rows: Any, positions: Sequence[Position], agent: str = "") -> None:
        """As of any sink; `agent` is who sent them."""

"""aiokafka's batch builder, filled with many records by one call.

Its own `append` costs more than twice what the builder in C inside it does (measured: 0.52 against
0.22 µs a record), which is most of what producing a record costs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder

from tpstream.bus.envelope import Headers

UNCOMPRESSED = 0

Item = tuple[bytes, bytes | None, Headers, int, Any, int]
"""A record that waits to be sent: key, value, headers, timestamp in ms, token, and its size in bytes.

A plain tuple, as one is made for every record: a named one costs 0.3 µs more (measured).
"""


class RecordBatch(BatchBuilder):  # type: ignore[misc]
    """A batch of up to `size` bytes. A first record that is larger is taken, too: by itself."""

    _relative_offset: int

    def __init__(self, size: int) -> None:
        super().__init__(size, UNCOMPRESSED)

    def fill(self, items: Iterable[Item]) -> int:
        """Append records until one does not fit any more; how many did."""
        append = self._builder.append
        count = first = self._relative_offset
        for key, value, headers, timestamp, _, _ in items:
            # Headers are to be a list there.
            own = headers if type(headers) is list else list(headers)
            if append(count, timestamp, key, value, own) is None:
                break
            count += 1
        self._relative_offset = count
        return count - first

"""The newest life record among those read from `tp.life.v1`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tpstream.bus import topics
from tpstream.errors import TpstreamError
from tpstream.messages import LifeRecord


def newest(records: Sequence[Any]) -> LifeRecord | None:
    """The last of these records that says a life; whatever else somebody wrote there says nothing."""
    for record in reversed(records):
        try:
            life = topics.life.decode(record.value or b"")
            if len(bytes.fromhex(life.id)) == 16:
                return life
        except (TpstreamError, ValueError):
            continue
    return None

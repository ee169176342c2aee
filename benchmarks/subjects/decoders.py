"""How a reading's bytes become Python: orjson to a dict, or msgspec to the two fields that are used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson


class Reading(msgspec.Struct, gc=False):
    """The fields of a reading that the measured job uses."""

    ts: int
    temperature: float


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "orjson": orjson.loads,
    "msgspec": msgspec.json.Decoder(Reading).decode,
}

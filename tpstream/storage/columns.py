"""Rows as columns: what the store's sinks take, built from messages by pure functions.

Columns, because ClickHouse takes 1,000 rows as columns at a tenth of what 1,000 rows cost.
Each builder takes messages with their origins and the delivery times of their records
(ms), all of the same length, and makes a block in the order of its table's shape
(storage/tables.py). Times are ms; the engine makes identity and rank of a point out of
`source_…` and `received_at` itself (storage/migrations).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tpstream.bus.envelope import DERIVED_VERSION, origin_in
from tpstream.messages import Alarm, CommandStatus, DeadLetter, DeviceStatus, Telemetry, WindowResult
from tpstream.storage import tables
from tpstream.storage.native import Array, Block, Few, Maybe, Texts, block

YEAR_10000 = 253_402_300_800_000
"""ms; ClickHouse's clients in Python read times up to there."""

Origin = tuple[bytes, int, int, int]
"""A Position, or its plain fields: life, partition, offset, item."""

# A packed DerivedHeader (bus/envelope.py), of which a column of origins is read at once.
_ORIGIN = [("life", "V16"), ("partition", "<u4"), ("offset", "<u8"), ("item", "<u4")]
_HEADER = np.dtype([("version", "u1"), ("kind", "u1"), ("position", "V32"), *_ORIGIN])


class Origins(NamedTuple):
    """Origins of records as columns; `life` in hex."""

    life: Few
    partition: Array
    offset: Array
    item: Array

    @classmethod
    def of(cls, origins: Sequence[Origin]) -> Origins:
        """From origins. Raises OverflowError for a number that is none of a position."""
        texts = {origin[0]: bytes(origin[0]).hex() for origin in origins}
        return cls(
            Few.of([texts[origin[0]] for origin in origins]),
            np.array([origin[1] for origin in origins], np.uint32),
            np.array([origin[2] for origin in origins], np.uint64),
            np.array([origin[3] for origin in origins], np.uint32),
        )

    @classmethod
    def read(cls, headers: Sequence[bytes]) -> Origins:
        """From packed derived headers. Raises TpstreamError for one that is torn or newer."""
        joined = b"".join(headers)
        if len(joined) != _HEADER.itemsize * len(headers):
            return cls.of([origin_in(header) for header in headers])
        found = np.frombuffer(joined, _HEADER)
        if not (found["version"] == DERIVED_VERSION).all():
            return cls.of([origin_in(header) for header in headers])
        lives = found["life"]
        # One per batch but for replays.
        first = lives[:1].tobytes()
        if lives.tobytes() == first * len(headers):
            life = Few.one(first.hex(), len(headers))
        else:
            life = Few.of([value.tobytes().hex() for value in lives])
        return cls(life, found["partition"], found["offset"], found["item"])


def telemetry(messages: Sequence[Telemetry], origins: Origins | Sequence[Origin], delivered: Sequence[int]) -> Block:
    """Points of messages; a point's index is its place in its message, from the origin's own on."""
    where = origins if isinstance(origins, Origins) else Origins.of(origins)
    points = [point for message in messages for point in message.points]
    total = len(points)
    counts = np.fromiter([len(message.points) for message in messages], np.int64, len(messages))
    device = Few.of([message.device for message in messages])
    numbers = [point.number for point in points]
    values = np.fromiter(numbers, np.float64, total)  # type: ignore[arg-type]
    absent = np.zeros(total, np.uint8)
    if np.isnan(values).any():  # None is NaN to numpy; JSON knows no NaN
        absent = np.fromiter([number is None for number in numbers], np.uint8, total)
    texts = [point.text for point in points]
    first = where.item - (np.cumsum(counts) - counts)  # of each message, less the points before it
    return Block(
        (
            Few(device.words, np.repeat(device.places, counts)),
            Few.of([point.key for point in points]),
            np.fromiter([point.ts for point in points], np.int64, total),
            Few.of([point.ts_from for point in points]),
            Few.of([point.kind for point in points]),
            Maybe(absent, values),
            Texts(texts if any(texts) else None, total),
            np.repeat(np.fromiter(delivered, np.int64, len(messages)), counts),
            Few(where.life.words, np.repeat(where.life.places, counts)),
            np.repeat(where.partition, counts),
            np.repeat(where.offset, counts),
            (np.repeat(first, counts) + np.arange(total)).astype(np.uint32),
        ),
        total,
    )


def _block(shape: tables.TableShape, *columns: Any) -> Block:
    return block([kind for _, kind in shape.columns], columns, len(columns[0]))


def windows(messages: Sequence[WindowResult], origins: Origins | Sequence[Origin], delivered: Sequence[int]) -> Block:
    """Closed windows."""
    return _block(
        tables.WINDOWS,
        [m.window for m in messages],
        [m.device for m in messages],
        [m.key for m in messages],
        [m.start for m in messages],
        [m.end for m in messages],
        [m.aggregate for m in messages],
        [m.value for m in messages],
        [m.count for m in messages],
        [m.closed_at for m in messages],
    )


def alarms(messages: Sequence[Alarm], origins: Origins | Sequence[Origin], delivered: Sequence[int]) -> Block:
    """States of alarms."""
    return _block(
        tables.ALARMS,
        [m.id for m in messages],
        [m.rule for m in messages],
        [m.device for m in messages],
        [m.severity for m in messages],
        [m.state.value for m in messages],
        [m.started_at for m in messages],
        [m.ended_at for m in messages],
        [m.acknowledged_at for m in messages],
        [m.value for m in messages],
        [m.details for m in messages],
        [m.version for m in messages],
    )


def commands(messages: Sequence[CommandStatus], origins: Origins | Sequence[Origin], delivered: Sequence[int]) -> Block:
    """States of commands."""
    return _block(
        tables.COMMANDS,
        [m.id for m in messages],
        [m.device for m in messages],
        [m.method for m in messages],
        [m.params for m in messages],
        [m.state.value for m in messages],
        [m.created_at for m in messages],
        [m.updated_at for m in messages],
        [m.attempts for m in messages],
        [m.result for m in messages],
        [m.source for m in messages],
        [m.version for m in messages],
    )


def _readable(ts: int, delivered: int) -> int:
    """A letter's time; that of its delivery, or 0, where a client could not read it: it may be what was wrong."""
    return next((at for at in (ts, delivered) if 0 <= at < YEAR_10000), 0)


def dead_letters(
    messages: Sequence[DeadLetter], origins: Origins | Sequence[Origin], delivered: Sequence[int]
) -> Block:
    """Dead letters."""
    return _block(
        tables.DEAD_LETTERS,
        [m.id for m in messages],
        [_readable(m.ts, at) for m, at in zip(messages, delivered, strict=True)],
        [m.device for m in messages],
        [m.stage for m in messages],
        [m.reason for m in messages],
        [m.topic for m in messages],
        [m.payload for m in messages],
        [m.detail for m in messages],
        [m.attempts for m in messages],
        [m.source_life for m in messages],
        [m.source_partition for m in messages],
        [m.source_offset for m in messages],
        [m.source_index for m in messages],
    )


def device_status(
    messages: Sequence[DeviceStatus], origins: Origins | Sequence[Origin], delivered: Sequence[int]
) -> Block:
    """Changes of online status."""
    return _block(
        tables.DEVICE_STATUS,
        [m.device for m in messages],
        [m.online for m in messages],
        [m.ts for m in messages],
        [m.reason for m in messages],
        *(origins if isinstance(origins, Origins) else Origins.of(origins)),
    )

"""A history for the store's benchmark: 1,000 devices with ten keys each, made by the engine itself.

One key speaks every 30 s, nine every 30 minutes: 3,312,000 points a day. A day is inserted
after the other, all devices interleaved, as points arrive.
"""

from __future__ import annotations

from typing import Any

DEVICES = 1_000
PER_DAY = DEVICES * (2_880 + 9 * 48)
BEGIN = 1_760_572_800_000
"""2025-10-16, so that thirty days lie in two table partitions."""
DAY = 86_400_000
_MOMENTS = (("'k0'", 30_000, 2_880 * DEVICES, 1), ("concat('k', toString(1 + n % 9))", 1_800_000, 48 * 9 * DEVICES, 9))


def statement(day: int, part: int, step: int = 1) -> str:
    """An INSERT of one day: its fast key (part 0) or the slow ones (1); of every `step`th row only."""
    key, every, rows, keys = _MOMENTS[part]
    return f"""
INSERT INTO telemetry_rows (tenant, device, key, ts, ts_from, kind, number, text, received_at,
    source_life, source_partition, source_offset, source_index)
SELECT 'default', concat('device-', leftPad(toString(d), 4, '0')), {key}, fromUnixTimestamp64Milli(ms, 'UTC'),
    if(d % 10 = 0, 'delivery', 'device'), 'number',
    round(20 + 5 * sin(ms / 13750987 + d) + (cityHash64(n, {day}) % 100) / 100, 2), '',
    fromUnixTimestamp64Milli(toInt64(ms + 200 + cityHash64(n) % 1500), 'UTC'),
    '0123456789abcdef0123456789abcdef', d % 8, toUInt64({day} * 1000000 + intDiv(n, 8)), n % {keys}
FROM (
    SELECT number * {step} AS n, intDiv(n, {keys}) % {DEVICES} AS d,
        toInt64({BEGIN + day * DAY} + intDiv(n, {keys * DEVICES}) * {every} + d * 7) AS ms
    FROM numbers({rows // step}))"""


def fill(client: Any, days: int, repeated: int = 0) -> None:
    """Insert `days` days; with `repeated` again every so manyth row of each."""
    for day in range(days):
        for part in (0, 1):
            client.command(statement(day, part))
    if repeated:
        for day in range(days):
            for part in (0, 1):
                client.command(statement(day, part, repeated))

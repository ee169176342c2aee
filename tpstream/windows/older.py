"""Reads what earlier versions stored of a device's windows."""

from __future__ import annotations

import msgspec

from tpstream.windows.aggregates import NUMBERS
from tpstream.windows.state import FAR, DeviceWindows, Pane, Series


class _Open(msgspec.Struct, array_like=True):
    start: int
    end: int
    count: int
    accumulator: tuple[float, ...]


class _Series(msgspec.Struct, array_like=True):
    size: int
    aggregate: str
    floor: int
    open: tuple[_Open, ...]


class _DeviceWindows(msgspec.Struct, array_like=True):
    watermark: int
    heard: int
    definitions: str
    closes: int | None
    due: int | None
    series: dict[str, dict[str, _Series]]


def read_older(data: bytes) -> DeviceWindows:
    """A value as version 0.1 stored it. msgspec.DecodeError: it is none.

    Its definitions have a digest that is no longer made, so the next fold goes over to today's.
    """
    old = msgspec.msgpack.decode(data, type=_DeviceWindows)
    state = DeviceWindows(
        old.definitions,
        old.watermark,
        old.heard,
        FAR if old.closes is None else old.closes,
        FAR if old.due is None else old.due,
    )
    known: dict[str, Series] = {}
    for name, keys in old.series.items():
        for key, series in keys.items():
            renewed = _renewed(name, series)
            renewed.beside = known.get(key)
            known[key] = renewed
    state.keep(known)
    return state


def _renewed(name: str, old: _Series) -> Series:
    panes = [Pane(o.end, o.count, *(*o.accumulator, 0.0, 0.0)[:2]) for o in old.open]
    series = Series(name, old.size, old.size, NUMBERS[old.aggregate], old.floor)
    if panes:
        last = panes.pop()
        series.start, series.end = last.end - old.size, last.end
        series.count, series.a, series.b = last.count, last.a, last.b
    series.others = tuple(panes)
    return series

"""Columns in memory, and as ClickHouse's Native format has them.

A row of telemetry takes about 50 bytes so, where lists of Python objects take 500: what waits
for a store that is away stays small, and an insert is little more than a join of bytes.
The layout is that of ClickHouse's NativeWriter and SerializationLowCardinality; a body may
have any number of blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FIXED: dict[str, type[np.generic]] = {
    "UInt32": np.uint32,
    "UInt64": np.uint64,
    "Int64": np.int64,
    "Float64": np.float64,
    "Bool": np.uint8,
    "DateTime64(3, 'UTC')": np.int64,
}
_FEW = "LowCardinality(String)"
_SHARED_DICTIONARIES = struct.pack("<Q", 1)
_ADDITIONAL_KEYS, _NEW_DICTIONARY = 1 << 9, 1 << 10


class Few(NamedTuple):
    """Texts of which there are few: the distinct ones, and for each row which it is."""

    words: list[str]
    places: Array

    @classmethod
    def of(cls, texts: Sequence[str]) -> Few:
        """One text for each row."""
        # Most columns of this kind have one text only, and mostly it is one object: counting compares pointers.
        if texts and texts[0] is texts[-1] and texts.count(texts[0]) == len(texts):
            return cls.one(texts[0], len(texts))
        numbers = dict.fromkeys(texts, 0)
        if len(numbers) <= 1:
            return cls.one(next(iter(numbers), ""), len(texts))
        words = list(numbers)
        for number, word in enumerate(words):
            numbers[word] = number
        kind = np.uint8 if len(words) <= 0x100 else np.uint16 if len(words) <= 0x10000 else np.uint32
        return cls(words, np.fromiter(map(numbers.__getitem__, texts), kind, len(texts)))

    @classmethod
    def one(cls, text: str, count: int) -> Few:
        """The same text for all rows."""
        return cls([text], np.zeros(count, np.uint8))


class Maybe(NamedTuple):
    """Numbers that may be absent."""

    absent: Array
    """1 where it is."""
    values: Array


class Texts(NamedTuple):
    """Texts or bytes of any kind; None: all are empty."""

    values: list[str] | list[bytes] | None
    size: int


Column = Array | Few | Maybe | Texts


class Block(NamedTuple):
    """Rows as columns, in the order of their table's shape (storage/tables.py)."""

    columns: tuple[Column, ...]
    size: int

    def cut(self, start: int, stop: int) -> Block:
        """The rows from `start` to before `stop`."""
        return Block(tuple(_cut(column, start, stop) for column in self.columns), stop - start)

    def rows(self) -> list[tuple[Any, ...]]:
        """Each row's values as Python has them; times are ms."""
        return list(zip(*(_values(column) for column in self.columns), strict=True))


def column(kind: str, values: Any) -> Column:
    """A column of that ClickHouse type; one that is a column already stays as it is.

    Raises OverflowError, TypeError or ValueError for a value that does not fit.
    """
    if isinstance(values, (Few, Maybe, Texts, np.ndarray)):
        return values
    if kind == _FEW:
        return Few.of([*values])
    if kind == "String":
        return Texts(list(values), len(values))
    if kind.startswith("Nullable("):
        inner = _FIXED[kind[9:-1]]
        absent = [value is None for value in values]
        return Maybe(np.array(absent, np.uint8), np.array([v if v is not None else 0 for v in values], inner))
    return np.array(values, _FIXED[kind])


def block(kinds: Sequence[str], columns: Sequence[Any], count: int) -> Block:
    """A block of `count` rows from lists of values (or columns), one for each of the types."""
    return Block(tuple(column(kind, values) for kind, values in zip(kinds, columns, strict=True)), count)


class Writer:
    """Writes blocks of one table, with the tenant as the first column of each."""

    def __init__(self, columns: Sequence[tuple[str, str]], tenant: str) -> None:
        self._heads = [_text(name) + _text(kind) for name, kind in (("tenant", _FEW), *columns)]
        self._tenant = tenant

    def bytes_of(self, rows: Block) -> bytes:
        """The block in Native format."""
        parts = [_varint(len(self._heads)), _varint(rows.size)]
        for head, values in zip(self._heads, (Few.one(self._tenant, rows.size), *rows.columns), strict=True):
            parts.append(head)
            _write(values, parts)
        return b"".join(parts)


def _write(values: Column, parts: list[bytes]) -> None:
    if isinstance(values, Few):
        width = values.places.itemsize.bit_length() - 1
        parts.append(_SHARED_DICTIONARIES)
        parts.append(struct.pack("<QQ", _ADDITIONAL_KEYS | _NEW_DICTIONARY | width, len(values.words)))
        parts.extend(map(_text, values.words))
        parts.append(struct.pack("<Q", len(values.places)))
        parts.append(values.places.tobytes())
    elif isinstance(values, Maybe):
        parts.append(values.absent.tobytes())
        parts.append(values.values.tobytes())
    elif isinstance(values, Texts):
        if values.values is None:
            parts.append(bytes(values.size))
        else:
            parts.extend(map(_text, values.values))
    else:
        parts.append(values.tobytes())


def _text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    if number < 128:
        return bytes((number,))
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _cut(values: Column, start: int, stop: int) -> Column:
    if isinstance(values, Few):
        return Few(values.words, values.places[start:stop])
    if isinstance(values, Maybe):
        return Maybe(values.absent[start:stop], values.values[start:stop])
    if isinstance(values, Texts):
        return Texts(values.values and values.values[start:stop], stop - start)
    return values[start:stop]


def _values(values: Column) -> list[Any]:
    if isinstance(values, Few):
        return [values.words[place] for place in values.places]
    if isinstance(values, Maybe):
        return [None if none else v for none, v in zip(values.absent.tolist(), values.values.tolist(), strict=True)]
    if isinstance(values, Texts):
        return [""] * values.size if values.values is None else list(values.values)
    found: list[Any] = values.tolist()
    return found

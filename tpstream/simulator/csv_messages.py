"""A CSV with a time column as messages of devices. Reads lines lazily; sends nothing."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TextIO

import msgspec

from tpstream.errors import ConfigurationError, TpstreamError
from tpstream.uplink.dialects import valid_number

Value = float | int | bool | str
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LEADING_ZERO = re.compile(r"[+-]?0[0-9]")
_BOOLEANS = {"true": True, "false": False}
_DATE = re.compile(r"([0-9]{4})/([0-9]{1,2})/([0-9]{1,2})(.*)", re.DOTALL)
_SECONDS_BELOW, _MILLISECONDS_BELOW = 10**11, 10**14
"""docs/protocol.md, Times."""


class Message(NamedTuple):
    """One row. Times in ms."""

    device: str
    ts: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class CsvFile:
    """Which file, and what its columns mean."""

    path: Path
    columns: tuple[str, ...]
    ts: int
    device: int | None
    name: str
    """The device's number where it is in no column."""
    keys: tuple[int, ...]

    def messages(self) -> Iterator[Message]:
        """Each row as a message, in the file's order; rows without any value are passed over.

        Raises TpstreamError naming file, line and column of what cannot be read.
        """
        with _open(self.path) as file:
            rows = csv.reader(file, strict=True)
            try:
                next(rows)
                for row in rows:
                    if row and (message := self._message(row, rows.line_num)) is not None:
                        yield message
            except csv.Error as error:
                raise TpstreamError(f"{self.path}:{rows.line_num}: not CSV: {error}; mend that line") from None
            except UnicodeEncodeError:  # a byte that was no UTF-8 came in as a lone surrogate
                raise TpstreamError(f"{self.path}:{rows.line_num}: not UTF-8; save the file as UTF-8") from None

    def _message(self, row: Sequence[str], line: int) -> Message | None:
        if len(row) > len(self.columns):
            raise self._error(
                line, "", f"{len(row)} cells for {len(self.columns)} columns", "put texts with commas in quotes"
            )
        row = [*row, *[""] * (len(self.columns) - len(row))]
        values = {self.columns[n]: parsed for n in self.keys if (parsed := value(row[n])) is not None}
        if not values:
            return None
        try:
            ts = milliseconds(row[self.ts])
        except ValueError:
            remedy = "write ISO 8601 or seconds or milliseconds since 1970"
            raise self._error(line, self.columns[self.ts], f"{row[self.ts]!r} is no time", remedy) from None
        device = self.name if self.device is None else row[self.device].strip()
        if not valid_number(device):
            column = "" if self.device is None else self.columns[self.device]
            remedy = "use up to 128 bytes without / + #, not beginning with $"
            raise self._error(line, column, f"{device!r} is no device number", remedy)
        return Message(device, ts, msgspec.json.encode({"ts": ts, "values": values}))

    def _error(self, line: int, column: str, what: str, remedy: str) -> TpstreamError:
        place = f" column {column!r}:" if column else ""
        return TpstreamError(f"{self.path}:{line}:{place} {what}; {remedy}")


def csv_file(path: Path, *, device: str, ts: str, keys: Sequence[str] = ()) -> CsvFile:
    """Read the header and find the columns. `keys` empty: all but the time and the device.

    `device` is the name of a column, or else the number of the one device.
    Raises ConfigurationError naming the file and the column that is missing.
    """
    try:
        with _open(path) as file:
            columns = tuple(name.strip() for name in next(csv.reader(file), ()))
            "".join(columns).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{path}:1: not UTF-8; save the file as UTF-8") from None
    except csv.Error as error:
        raise ConfigurationError(f"{path}:1: not CSV: {error}; mend that line") from None
    if not columns:
        raise ConfigurationError(f"{path}:1: no header; the first line must name the columns")
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise ConfigurationError(f"{path}:1: two columns are named {twice[0]!r}; rename one")
    for name in (ts, *keys):
        if name not in columns:
            raise ConfigurationError(f"{path}:1: no column {name!r}; there are {', '.join(columns)}")
    at = columns.index(device) if device in columns else None
    taken = {columns.index(ts), at}
    places = [columns.index(name) for name in keys] or [n for n in range(len(columns)) if n not in taken]
    if not places:
        raise ConfigurationError(f"{path}:1: no column is left for values; add one beside {ts!r}")
    if at is None and not valid_number(device):
        raise ConfigurationError(f"--device {device!r} is neither a column of {path} nor a device number")
    return CsvFile(path, columns, columns.index(ts), at, device, tuple(places))


def value(text: str) -> Value | None:
    """A cell as number, boolean or text; None where it is empty. `007` and `1e999` stay texts."""
    text = text.strip()
    if not text:
        return None
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _INTEGER.fullmatch(text) and len(text) <= 300:
        return int(text)
    if _FLOAT.fullmatch(text) and not _LEADING_ZERO.match(text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


def milliseconds(text: str) -> int:
    """A time in ms: ISO 8601 (also 2010/01/31 12:00), else seconds or milliseconds since 1970.

    Without a zone it is UTC. Raises ValueError.
    """
    text = text.strip()
    if _FLOAT.fullmatch(text):
        number = float(text)
        if abs(number) >= _MILLISECONDS_BELOW:
            raise ValueError(text)
        return round(number * 1000 if abs(number) < _SECONDS_BELOW else number)
    if match := _DATE.fullmatch(text):
        text = f"{match[1]}-{match[2]:0>2}-{match[3]:0>2}{match[4]}"
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _open(path: Path) -> TextIO:
    try:
        return path.open(newline="", encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; check the path") from None

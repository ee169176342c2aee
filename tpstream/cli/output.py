"""Print rows for a person, or JSON for a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec


def as_json(value: Any) -> None:
    """One JSON document on one line."""
    click.echo(msgspec.json.encode(value).decode())


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns as wide as their widest cell; numbers to the right; cells cut at 60 on a terminal."""
    cut = 60 if sys.stdout.isatty() else None
    cells = [[cell(value, cut) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    right = [bool(cells) and all(_is_number(row[n]) for row in cells) for n in range(len(headings))]
    click.secho(_line(headings, widths, right), bold=True)
    for row in cells:
        click.echo(_line(row, widths, right))


def cell(value: Any, cut: int | None = None) -> str:
    """A value as text on one line; nothing for None."""
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    text = "".join(c if c.isprintable() else "·" for c in text)
    return text if cut is None or len(text) <= cut else text[: cut - 1] + "…"


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return "  ".join(
        value.rjust(width) if to_right else value.ljust(width)
        for value, width, to_right in zip(row, widths, right, strict=True)
    ).rstrip()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text
    return True

"""Reading parameters: each is right, or a 400 says which one is wrong and what it should be."""

from __future__ import annotations

from collections.abc import Mapping

from tpstream.uplink.dialects import valid_number
from tpstream.web.reply import BadRequest

MAX_TIME = 10**14
"""Milliseconds; the year 5138. Beyond it a number is no time."""


def integer(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """A whole number within bounds, or the default where it is absent."""
    text = query.get(name)
    if text is None or text == "":
        return default
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 18:
        raise BadRequest(name, f"{text[:40]!r} is no whole number")
    value = int(text)
    if not least <= value <= most:
        raise BadRequest(name, f"{value} is not between {least} and {most}")
    return value


def time_range(query: Mapping[str, str], now: int, span: int) -> tuple[int, int]:
    """`start` and `end` in ms since 1970; absent: the last `span` ms."""
    end = integer(query, "end", now, 0, MAX_TIME)
    start = integer(query, "start", max(0, min(end, now) - span), 0, MAX_TIME)
    if start > end:
        raise BadRequest("start", f"{start} is after end {end}")
    return start, end


def text(query: Mapping[str, str], name: str, most: int) -> str:
    """A required text of at most so many bytes."""
    if name not in query:
        raise BadRequest(name, "is missing")
    return checked(query[name], name, most)


def checked(value: str, name: str, most: int) -> str:
    """The text itself, if it is at most so many bytes of UTF-8 without NUL."""
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadRequest(name, "is not UTF-8") from None
    if size > most or "\0" in value:
        raise BadRequest(name, f"is longer than {most} bytes" if size > most else "contains NUL")
    return value


def device_number(value: str) -> str:
    """A device number as docs/protocol.md has it, under Identity."""
    if not valid_number(value):
        raise BadRequest("device", f"{value[:40]!r} is no device number")
    return value


def known(query: Mapping[str, str], *names: str) -> None:
    """Refuse a parameter that the route does not have: a misspelt filter must not be ignored."""
    for name in query:
        if name not in names:
            expected = ", ".join(names) if names else "none"
            raise BadRequest(name[:40], f"is not a parameter here; there are: {expected}")

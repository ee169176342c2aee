"""What errors of the store are to a person: one line."""

import datetime

import pytest

from tpstream.storage.client import reason
from tpstream.storage.reader import plain

LONG = (
    "Received ClickHouse exception, code: 243, server response: Code: 243. DB::Exception: Cannot reserve 6.55 MiB,"
    " not enough space. (NOT_ENOUGH_SPACE) (version 26.9.2.1 (tpstream)) (for url http://127.0.0.1:1)"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Exception(LONG), "Cannot reserve 6.55 MiB, not enough space. (NOT_ENOUGH_SPACE)"),
        (Exception("Network Error:\n  refused"), "Network Error: refused"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_one_line(error, line):
    assert reason(error) == line


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        (datetime.datetime(2023, 11, 14, 22, 13, 20, 123000), 1_700_000_000_123),
        (datetime.datetime(2023, 11, 14, 22, 13, 20, 123000, datetime.UTC), 1_700_000_000_123),
        (datetime.datetime(1969, 12, 31, 23, 59, 59, 999000), -1),
        (b"text", "text"),
        (b"\xff", "/w=="),
        ((1, [b"a"], {"k": datetime.datetime(1970, 1, 1)}), [1, ["a"], {"k": 0}]),
        (datetime.date(2020, 1, 2), "2020-01-02"),
    ],
)
def test_values_as_json_has_them(value, expected):
    assert plain(value) == expected

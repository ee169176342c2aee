"""A CSV as messages: every cell has one meaning, every error names file, line and column."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.errors import TpstreamError
from tpstream.simulator.csv_messages import csv_file, milliseconds, value
from tpstream.simulator.replay import seconds_until


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("  ", None),
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("1e999", "1e999"),
        ("007", "007"),
        ("00.5", "00.5"),
        ("9007199254740993", 9007199254740993),
        ("true", True),
        ("FALSE", False),
        ("nan", "nan"),
        ("inf", "inf"),
        (" 21.5 ", 21.5),
        ("on", "on"),
        ("1_000", "1_000"),
        ("٣", "٣"),
    ],
)
def test_a_cell(text: str, expected: object) -> None:
    parsed = value(text)
    assert parsed == expected
    assert type(parsed) is type(expected)


@given(st.text())
def test_any_cell_becomes_json(text: str) -> None:
    parsed = value(text)
    if not text.isascii():
        return
    assert json.loads(json.dumps(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000", 1_700_000_000_000),
        ("1700000000.25", 1_700_000_000_250),
        ("1700000000000", 1_700_000_000_000),
        ("0", 0),
        ("2010-01-01", 1_262_304_000_000),
        ("2010-01-01 00:00", 1_262_304_000_000),
        ("2010/01/01 00:00", 1_262_304_000_000),
        ("2010/1/1", 1_262_304_000_000),
        ("2010-01-01T00:00:00Z", 1_262_304_000_000),
        ("2010-01-01T01:00:00+01:00", 1_262_304_000_000),
        ("2010-01-01T00:00:00.123", 1_262_304_000_123),
    ],
)
def test_a_time(text: str, expected: int) -> None:
    assert milliseconds(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "1e14", "100000000000000", "01/02/2010", "2010-13-01", "nan"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is the caller's
        milliseconds(text)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))
def test_a_time_written_comes_back(moment: datetime) -> None:
    expected = moment.replace(tzinfo=UTC).timestamp() * 1000
    assert abs(milliseconds(moment.isoformat()) - expected) <= 0.5


def test_rows_are_messages_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'station,time,temp,note\nb,2010-01-02,1.5,\na,2010-01-01,2,"x, y"\n\na,2010-01-03,,\nb,1262304000,,late\n',
    )
    rows = list(csv_file(path, device="station", ts="time").messages())
    assert [(row.device, json.loads(row.payload)) for row in rows] == [
        ("b", {"ts": 1_262_390_400_000, "values": {"temp": 1.5}}),
        ("a", {"ts": 1_262_304_000_000, "values": {"temp": 2, "note": "x, y"}}),
        ("b", {"ts": 1_262_304_000_000, "values": {"note": "late"}}),
    ]


def test_one_device_and_chosen_keys(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufefftime,temp,wind\n1,2,3\n")
    (row,) = csv_file(path, device="seattle", ts="time", keys=["wind"]).messages()
    assert (row.device, json.loads(row.payload)) == ("seattle", {"ts": 1000, "values": {"wind": 3}})


@pytest.mark.parametrize(
    ("text", "options", "where"),
    [
        ("time,t\n1,2\n", {"ts": "when"}, "f.csv:1: no column 'when'; there are time, t"),
        ("time,t\n1,2\n", {"keys": ["u"]}, "f.csv:1: no column 'u'"),
        ("time,t\n1,2\n", {"device": "a/b"}, "--device 'a/b'"),
        ("", {}, "f.csv:1: no header"),
        ("time,t,t\n", {}, "f.csv:1: two columns are named 't'"),
        ("time\n1\n", {}, "f.csv:1: no column is left"),
        ("time,t\n1,2\nsoon,3\n", {}, "f.csv:3: column 'time': 'soon' is no time"),
        ("time,t\n1,2\n,3\n", {}, "f.csv:3: column 'time': '' is no time"),
        ("time,t\n1,2,3\n", {}, "f.csv:2: 3 cells for 2 columns"),
        ("time,t,d\n1,2,x#\n", {"device": "d"}, "f.csv:2: column 'd': 'x#' is no device number"),
        ('time,t\n1,"2\n', {}, "f.csv:2: not CSV"),
        ("time,t\n1,\udcff\n", {}, "f.csv:2: not UTF-8"),
        ("time,t\udcff\n1,2\n", {}, "f.csv:1: not UTF-8"),
    ],
)
def test_each_error_says_where(tmp_path: Path, text: str, options: dict[str, object], where: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TpstreamError) as caught:
        list(csv_file(path, **{"device": "d1", "ts": "time", **options}).messages())
    message = str(caught.value).replace(str(path), "f.csv")
    assert message.startswith(where)
    assert "\n" not in message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TpstreamError, match="No such file"):
        csv_file(tmp_path / "none.csv", device="d", ts="t")


@pytest.mark.parametrize(
    ("ts", "speed", "elapsed", "wait"),
    [
        (1_000, None, 0.0, 0.0),
        (61_000, 1.0, 0.0, 60.0),
        (61_000, 60.0, 0.25, 0.75),
        (61_000, 60.0, 5.0, 0.0),
        (0, 1.0, 0.0, 0.0),
    ],
)
def test_pace(ts: int, speed: float | None, elapsed: float, wait: float) -> None:
    assert seconds_until(ts, 1_000, speed, elapsed) == pytest.approx(wait)


def write(folder: Path, text: str) -> Path:
    path = folder / "f.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path

"""Parameters: right, or a complaint that names the one that is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.web.parameters import MAX_TIME, device_number, integer, known, time_range
from tpstream.web.reply import BadRequest


@pytest.mark.parametrize("text", ["x", "1.5", "1e3", "0x10", " 1", "1_000", "٣", "-", "9" * 30, "0", "10001", "-1"])
def test_a_limit_that_is_none_names_the_parameter(text: str) -> None:
    with pytest.raises(BadRequest, match="limit: ") as caught:
        integer({"limit": text}, "limit", 100, 1, 10_000)
    assert caught.value.parameter == "limit"


@given(st.integers(1, 10_000))
def test_a_limit_within_bounds_is_taken(value: int) -> None:
    assert integer({"limit": str(value)}, "limit", 100, 1, 10_000) == value


def test_absent_parameters_have_defaults() -> None:
    assert integer({}, "limit", 100, 1, 10_000) == 100
    assert time_range({}, 10_000, 3_000) == (7_000, 10_000)
    assert time_range({"end": "5000"}, 10_000, 3_000) == (2_000, 5_000)
    assert time_range({"start": "1"}, 10_000, 3_000) == (1, 10_000)


@given(st.integers(0, MAX_TIME), st.integers(0, MAX_TIME))
def test_a_range_begins_before_it_ends_or_is_refused(start: int, end: int) -> None:
    query = {"start": str(start), "end": str(end)}
    if start <= end:
        assert time_range(query, 0, 1) == (start, end)
    else:
        with pytest.raises(BadRequest, match="start: "):
            time_range(query, 0, 1)


@pytest.mark.parametrize("number", ["d1", "Gewächshaus 7", "<b>", "a" * 128, "ü" * 64, "a$"])
def test_device_numbers(number: str) -> None:
    assert device_number(number) == number


@pytest.mark.parametrize(
    "number", ["", "a/b", "a+", "#", "a\0", "$SYS", "telemetry", "command", "a" * 129, "ü" * 65, "\ud800"]
)
def test_what_is_no_device_number_is_refused(number: str) -> None:
    with pytest.raises(BadRequest, match="device: "):
        device_number(number)


def test_a_misspelt_parameter_is_not_ignored() -> None:
    with pytest.raises(BadRequest, match="limt: is not a parameter here; there are: limit"):
        known({"limt": "1"}, "limit")

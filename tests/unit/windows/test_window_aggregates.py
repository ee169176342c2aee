"""Each aggregate: worth what Python says, and the same in two parts as in one."""

import math
from statistics import fmean, pstdev, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.windows.aggregates import ADD, AGGREGATES, NAMES, NUMBERS, SUMMED, Part
from tpstream.windows.state import Series

PLAIN = {
    "mean": lambda readings: fmean(v for v, _ in readings),
    "sum": lambda readings: sum(v for v, _ in readings),
    "min": lambda readings: min(v for v, _ in readings),
    "max": lambda readings: max(v for v, _ in readings),
    "count": len,
    "first": lambda readings: min(readings, key=lambda r: r[1])[0],
    "last": lambda readings: max(readings, key=lambda r: r[1])[0],  # max() keeps the first of equals
    "stddevSamp": lambda readings: stdev(v for v, _ in readings) if len(readings) > 1 else None,
    "stddevPop": lambda readings: pstdev(v for v, _ in readings),
}

reading = st.tuples(st.integers(-100, 100).map(float), st.integers(0, 5))


def accumulate(name, readings):
    aggregate, growing = AGGREGATES[name], Series("w", 10, 10, NUMBERS[name])
    begun = aggregate.begin(*readings[0])
    growing.count, growing.a, growing.b = begun.count, begun.a, begun.b
    for value, ts in readings[1:]:
        growing.count += 1
        aggregate.add(growing, value, ts)
    return Part(growing.count, growing.a, growing.b)


def test_the_numbers_by_which_aggregates_are_stored_stay():
    assert NAMES == ("mean", "sum", "count", "min", "max", "first", "last", "stddevSamp", "stddevPop")
    assert set(NAMES) == set(PLAIN)


def test_below_summed_are_those_that_only_add_up():
    adding = ADD[NUMBERS["sum"]]
    assert [ADD[n] is adding for n in range(len(NAMES))] == [n < SUMMED for n in range(len(NAMES))]


@pytest.mark.parametrize("name", NAMES)
@given(left=st.lists(reading, min_size=1), right=st.lists(reading, min_size=1))
def test_in_one_part_or_two(name, left, right):
    both = left + right
    merged = AGGREGATES[name].merge(accumulate(name, left), accumulate(name, right))
    whole = accumulate(name, both)
    assert (merged.count, merged.a, merged.b) == pytest.approx((whole.count, whole.a, whole.b), abs=1e-9)
    assert AGGREGATES[name].value(merged.count, merged.a, merged.b) == pytest.approx(PLAIN[name](both), abs=1e-9)


def test_the_spread_of_large_values_that_lie_close_together_keeps_its_digits():
    values = [1e9 + n % 10 for n in range(10_000)]
    part = accumulate("stddevPop", [(value, 0) for value in values])
    assert AGGREGATES["stddevPop"].value(part.count, part.a, part.b) == pytest.approx(math.sqrt(8.25), rel=1e-9)

"""Each aggregate: worth what Python says, and the same in two parts as in one."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.windows import definition
from tpstream.windows.aggregates import AGGREGATES

PLAIN = {
    "mean": lambda readings: fmean(v for v, _ in readings),
    "sum": lambda readings: sum(v for v, _ in readings),
    "min": lambda readings: min(v for v, _ in readings),
    "max": lambda readings: max(v for v, _ in readings),
    "count": len,
    "first": lambda readings: min(readings, key=lambda r: r[1])[0],
    "last": lambda readings: max(readings, key=lambda r: r[1])[0],  # max() keeps the first of equals
}

reading = st.tuples(st.integers(-100, 100).map(float), st.integers(0, 5))


def accumulate(aggregate, readings):
    acc = aggregate.begin(*readings[0])
    for value, ts in readings[1:]:
        acc = aggregate.add(acc, value, ts)
    return acc


def test_every_aggregate_that_a_definition_may_name_is_there():
    assert set(AGGREGATES) == set(definition.AGGREGATES) == set(PLAIN)


@pytest.mark.parametrize("name", sorted(AGGREGATES))
@given(left=st.lists(reading, min_size=1), right=st.lists(reading, min_size=1))
def test_in_one_part_or_two(name, left, right):
    aggregate, both = AGGREGATES[name], left + right
    merged = aggregate.merge(accumulate(aggregate, left), accumulate(aggregate, right))
    assert merged == accumulate(aggregate, both)
    assert aggregate.value(merged, len(both)) == pytest.approx(PLAIN[name](both))

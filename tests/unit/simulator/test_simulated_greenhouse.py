"""The greenhouse: physics without a clock, and a loop that closes within two minutes."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.simulator.greenhouse import BATTERY_EMPTY, BATTERY_FULL, Greenhouse


def house(temperature: float = 27.0, seed: int = 1) -> Greenhouse:
    return Greenhouse(0.0, Random(seed), temperature)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("start", [25.0, 29.5])
def test_one_turn_of_the_loop_takes_less_than_two_minutes(seed: int, start: float) -> None:
    """The rule of examples/greenhouse, by hand: two ten-second means above 30, then one below 28."""
    greenhouse, hot, switched, means = house(start, seed), 0, [], []
    for window in range(12):
        temperatures = []
        for second in range(10):
            greenhouse.advance(window * 10 + second)
            temperatures.append(greenhouse.read().temperature)
        means.append(mean := sum(temperatures) / 10)
        hot = hot + 1 if mean > 30 else 0
        if hot == 2 and not greenhouse.fan:
            greenhouse.switch(True)
            switched.append((window, True))
        elif mean < 28 and greenhouse.fan:
            greenhouse.switch(False)
            switched.append((window, False))
    assert [on for _, on in switched[:2]] == [True, False], (switched, means)


def test_the_fan_cools_below_28_and_the_sun_heats_above_30() -> None:
    greenhouse = house()
    greenhouse.advance(300)
    assert greenhouse.temperature > 31
    greenhouse.switch(True)
    greenhouse.advance(600)
    assert greenhouse.temperature < 24


@given(st.floats(20, 40), st.booleans(), st.floats(0.1, 100), st.integers(1, 20))
def test_the_length_of_a_step_does_not_matter(start: float, fan: bool, seconds: float, steps: int) -> None:
    """With a sky that does not change, many small steps end where one long one does."""
    ends = []
    for parts in (1, steps):
        greenhouse = Greenhouse(0.0, _Still(), start, fan=fan)
        for n in range(parts):
            greenhouse.advance(seconds * (n + 1) / parts)
        ends.append(greenhouse.temperature)
    assert ends[0] == pytest.approx(ends[1])


@given(st.lists(st.tuples(st.floats(-10, 10_000), st.booleans()), max_size=30), st.integers(0, 99))
def test_it_stays_within_what_a_thermometer_shows(steps: list[tuple[float, bool]], seed: int) -> None:
    greenhouse = house(seed=seed)
    for at, fan in steps:
        greenhouse.switch(fan)
        greenhouse.advance(at)
        reading = greenhouse.read()
        assert 15 < reading.temperature < 40
        assert 0 <= reading.humidity <= 100
        assert BATTERY_EMPTY <= reading.battery <= BATTERY_FULL


def test_a_clock_that_goes_back_changes_nothing() -> None:
    greenhouse = house()
    greenhouse.advance(100)
    before = greenhouse.temperature
    greenhouse.advance(50)
    assert (greenhouse.temperature, greenhouse.at) == (before, 100)


class _Still(Random):
    def gauss(self, mu: float = 0.0, sigma: float = 1.0) -> float:
        return mu

"""How often a part may die, and how long each may take to stop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.embedded.part import how
from tpstream.embedded.restarts import LIMIT, LONGEST_DELAY, WITHIN, Restarts, allowance


def test_each_death_waits_longer_and_the_fifth_in_a_minute_is_the_last() -> None:
    restarts = Restarts()
    assert [restarts.died(now) for now in (0, 1, 3, 7, 15)] == [0.5, 1.0, 2.0, 4.0, None]


def test_deaths_of_more_than_a_minute_ago_are_forgotten() -> None:
    restarts = Restarts()
    for now in (0, 1, 2, 3):
        restarts.died(now)
    assert restarts.died(60.5) == 4.0  # three of the last minute, and this one
    assert restarts.died(200) == 0.5


@given(st.lists(st.floats(0, 300), max_size=40))
def test_it_gives_up_exactly_at_the_limit_within_the_minute(gaps: list[float]) -> None:
    restarts, now, deaths = Restarts(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        deaths.append(now)
        delay = restarts.died(now)
        recent = sum(now - at < WITHIN for at in deaths)
        assert (delay is None) == (recent >= LIMIT)
        assert delay is None or 0 < delay <= LONGEST_DELAY


@given(st.lists(st.tuples(st.floats(0.1, 5), st.floats(0, 1)), min_size=1, max_size=8), st.floats(0.5, 20))
def test_stopping_never_takes_longer_than_all_may(parts: list[tuple[float, float]], whole: float) -> None:
    spent = 0.0
    for n, (share, used) in enumerate(parts):
        allowed = allowance(whole - spent, share, sum(later for later, _ in parts[n + 1 :]))
        assert allowed >= 0
        spent += allowed * used
    assert spent <= whole * 1.000001


def test_unused_time_is_there_for_the_last() -> None:
    assert allowance(9.5, 2.0, 0.0) == 9.5


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")]
)
def test_how_a_process_ended(code: int, text: str) -> None:
    assert how(code) == text

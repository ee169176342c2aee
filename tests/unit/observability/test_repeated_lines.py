"""A line that is repeated comes once in 30 s, and then says how often it was repeated; nothing else is lost."""

from __future__ import annotations

import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.observability import repeats
from tpstream.observability.repeats import Repeats


class Log:
    """A handler behind the filter, and a clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.addFilter(Repeats(clock=lambda: self.now))

    def say(self, name: str, text: str, *values: object, level: int = logging.ERROR) -> None:
        self.handler.handle(logging.LogRecord(name, level, __file__, 1, text, values, None))

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_a_library_is_heard_once_in_30_seconds_and_its_repetitions_are_counted() -> None:
    log = Log()
    for n in range(80):
        log.now = 100.0 + n
        for node in range(10):
            log.say("aiokafka", "Unable connect to node with id %s", node)
    assert log.lines == [
        "Unable connect to node with id 0",
        "Unable connect to node with id 0 (and 299 more like it in the last 30 s)",
        "Unable connect to node with id 0 (and 299 more like it in the last 30 s)",
    ]


def test_after_a_silence_the_count_is_still_told_and_begins_anew() -> None:
    log = Log()
    for now in (0, 1, 2, 600, 700):
        log.now = now
        log.say("aiokafka", "away")
    assert log.lines == ["away", "away (and 2 more like it in the last 600 s)", "away"]


def test_other_lines_other_loggers_and_other_levels_are_not_concerned() -> None:
    log = Log()
    log.say("aiokafka", "away")
    log.say("aiokafka", "back")
    log.say("faust", "away")
    log.say("aiokafka", "away", level=logging.WARNING)
    assert log.lines == ["away", "back", "away", "away"]


@pytest.mark.parametrize("name", ["tpstream.bus.runner", "connectors.mqtt_bridge.bridge", "agents.decode"])
def test_our_own_lines_are_the_same_only_if_their_text_is(name: str) -> None:
    log = Log()
    for partitions in (8, 4, 4):
        log.say(name, "%d partitions assigned", partitions)
    assert log.lines == ["8 partitions assigned", "4 partitions assigned"]


def test_a_percent_sign_in_a_text_is_only_a_sign() -> None:
    log = Log()
    for now in (0, 1, 31):
        log.now = now
        log.say("aiokafka", "at %s", "100%")
    assert log.lines[-1] == "at 100% (and 1 more like it in the last 31 s)"


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 3)), max_size=200))
def test_every_line_is_either_there_or_counted_or_still_waiting(steps: list[tuple[float, int]]) -> None:
    log, last = Log(), dict[int, float]()
    for gap, which in steps:
        log.now += gap
        before = len(log.lines)
        log.say("x", f"line {which}")
        through = len(log.lines) > before
        assert through == (which not in last or log.now - last[which] >= repeats.SECONDS)
        if through:
            last[which] = log.now
    told = sum(int(line.split("(and ")[1].split()[0]) if "(and " in line else 0 for line in log.lines)
    assert len(log.lines) + told <= len(steps)


def test_memory_is_bounded() -> None:
    log = Log()
    kept = Repeats(clock=lambda: 0.0)
    for n in range(repeats.MOST * 2):
        kept.filter(logging.LogRecord("x", logging.ERROR, "", 1, f"line {n}", (), None))
    assert len(kept._lines) == repeats.MOST
    assert log.lines == []

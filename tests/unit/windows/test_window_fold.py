"""Windows against a naive reference, and what a device's watermark and silence do to them."""

import itertools
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpstream.messages import Point
from tpstream.windows import fold as folding
from tpstream.windows.definition import window
from tpstream.windows.fold import Closed, expire, fold
from tpstream.windows.state import Definitions

TEN = window("ten", key="t", size="10ms", lateness="5ms", idle="30ms")
DEFINITIONS = Definitions.of(
    [
        TEN,
        window("each", key="*", size="7ms", aggregate="max", lateness=0, idle="20ms"),
        window("sums", key="h", size="25ms", aggregate="sum", lateness="40ms", idle="10ms"),
    ]
)


def points(*pairs, key="t"):
    return [Point(key, ts, number) for ts, number in pairs]


def run(definitions, *messages, state=None):
    """Messages (delivery, points) in order; all that closed, and the state."""
    closed = []
    for delivery, folded_points in messages:
        state, more, _ = fold(state, folded_points, delivery, definitions)
        closed += more
    return closed, state


def only(*windows):
    return Definitions.of(windows)


def test_a_window_closes_when_the_watermark_is_past_its_end_by_the_lateness():
    closed, state = run(only(TEN), (3, points((3, 1.0))), (9, points((9, 3.0))), (14, points((14, 7.0))))
    assert closed == []
    state, closed, late = fold(state, points((15, 8.0)), 15, only(TEN))
    assert closed == [Closed("ten", "t", 0, 10, "mean", 2.0, 2)]
    assert late == []
    state, closed, late = fold(state, points((9, 99.0)), 16, only(TEN))
    assert closed == []
    assert [(entry.window, entry.point.ts) for entry in late] == [("ten", 9)]


def test_the_watermark_never_passes_delivery():
    state, closed, _ = fold(None, points((1_000_000, 1.0)), 12, only(TEN))
    assert (state.watermark, closed) == (12, [])
    state, closed, late = fold(state, points((11, 1.0)), 13, only(TEN))
    assert (closed, late) == ([], [])


def test_points_of_one_message_are_judged_by_the_watermark_before_it():
    closed, _ = run(only(TEN), (100, points((95, 1.0), (2, 5.0), (1, 7.0))))
    assert closed == [Closed("ten", "t", 0, 10, "mean", 6.0, 2)]


def test_what_is_no_number_moves_the_watermark_only_and_a_boolean_counts_as_0_or_1():
    text = Point("t", 20, None, "x", "text")
    on = Point("t", 21, 1.0, kind="bool")
    closed, state = run(only(TEN), (1, points((1, 4.0))), (20, [text]), (21, [on]), (22, points((22, 0.0))))
    assert closed == [Closed("ten", "t", 0, 10, "mean", 4.0, 1)]
    assert expire(state, 1000, only(TEN)).closed == [Closed("ten", "t", 20, 30, "mean", 0.5, 2)]


def test_silence_closes_by_the_clock_and_only_windows_whose_time_is_over():
    day = window("day", key="t", size="100ms", idle="30ms")
    _, state = run(only(TEN, day), (5, points((5, 1.0))))
    assert state.due == 35
    state, closed, _ = expire(state, 34, only(TEN, day))
    assert (closed, state.due) == ([], 35)
    state, closed, _ = expire(state, 35, only(TEN, day))
    assert [c.window for c in closed] == ["ten"]
    assert state.due == 100
    state, closed, late = fold(state, points((8, 2.0)), 36, only(TEN, day))
    assert [entry.window for entry in late] == ["ten"]
    assert expire(state, 100, only(TEN, day)).closed == [Closed("day", "t", 0, 100, "mean", 1.5, 2)]


def test_a_message_puts_silence_off_although_due_stays():
    _, state = run(only(TEN), (5, points((5, 1.0))), (30, points((5, 2.0))))
    assert state.due == 35
    state, closed, _ = expire(state, 35, only(TEN))
    assert (closed, state.due) == ([], 60)


def test_a_device_with_nothing_open_is_never_due():
    _, state = run(only(TEN), (5, points((5, 1.0))))
    state, closed, _ = expire(state, 50, only(TEN))
    assert len(closed) == 1
    assert (state.due, state.closes) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"size": "20ms"},
        {"aggregate": "max"},
        {"key": "other"},
        None,
    ],
)
def test_a_changed_or_vanished_definition_closes_its_windows_as_they_are(change):
    _, state = run(only(TEN), (3, points((3, 1.0))), (4, points((4, 3.0))))
    new = only(window("ten", **{"key": "t", "size": "10ms", **change})) if change else only()
    closed, state = run(new, (5, points((5, 9.0))), (500, points((500, 1.0))), state=state)
    assert closed[0] == Closed("ten", "t", 0, 10, "mean", 2.0, 2)
    assert len({(c.window, c.key, c.start) for c in closed}) == len(closed)


def test_no_window_of_a_changed_definition_has_the_start_of_a_closed_one():
    closed, state = run(only(TEN), (3, points((3, 1.0))), (17, points((17, 1.0))))
    assert [c.start for c in closed] == [0]
    wider = only(window("ten", key="t", size="40ms"))
    more, state = run(wider, (18, points((18, 9.0))), (45, points((45, 9.0))), (200, points((200, 9.0))), state=state)
    assert [(c.start, c.end) for c in more] == [(10, 20), (40, 80)]


def test_what_is_remembered_of_closed_windows_is_bounded():
    every = only(window("every", key="*", size="10ms"))
    _, state = run(every, *((n * 20, points((n * 20, 1.0), key=f"k{n}")) for n in range(500)))
    assert sum(map(len, state.series.values())) < 300


def test_another_lateness_or_idle_time_applies_to_open_windows():
    _, state = run(only(TEN), (3, points((3, 1.0))), (12, points((12, 3.0))))
    short = only(window("ten", key="t", size="10ms", lateness=0, idle="5ms"))
    state, closed, _ = expire(state, 13, short)
    assert [c.start for c in closed] == [0]
    assert state.due == 20


def test_open_windows_are_bounded_and_the_earliest_give_way(monkeypatch):
    monkeypatch.setattr(folding, "MAX_OPEN", 3)
    wide = only(window("w", key="*", size="10ms", lateness="1d"))
    closed, state = run(wide, (100, points((5, 1.0), (15, 2.0), (25, 3.0), (35, 4.0))))
    assert [c.start for c in closed] == [0]
    state, closed, late = fold(state, points((6, 1.0)), 101, wide)
    assert len(late) == 1


def test_a_state_is_never_changed_in_place():
    import msgspec

    _, state = run(DEFINITIONS, (3, points((3, 1.0))), (4, points((4, 1.0), key="h")))
    before = msgspec.msgpack.encode(state)
    fold(state, points((5, 1.0)), 500, DEFINITIONS)
    fold(state, points((5, 1.0)), 500, only())
    expire(state, 500, DEFINITIONS)
    assert msgspec.msgpack.encode(state) == before
    assert msgspec.msgpack.decode(before, type=type(state)) == state


# Against a naive reference

numbers = st.integers(-50, 50).map(float)
message = st.tuples(
    st.integers(0, 12),  # ms since the message before
    st.lists(st.tuples(st.sampled_from("th"), st.integers(-60, 30), numbers), max_size=3),  # key, ts - delivery, value
)


class Naive:
    """Every window as the list of its points; each rule of closing written out plainly."""

    def __init__(self, definitions):
        self.value = {"mean": fmean, "max": max, "sum": sum}
        self.definitions = list(definitions.by_name.values())
        self.open, self.floor = {}, {}
        self.watermark = self.heard = folding.NEVER
        self.closed, self.late = [], []

    def message(self, delivery, told):
        before = self.watermark
        for point in told:
            for d in self.definitions:
                if d.key not in ("*", point.key):
                    continue
                end = (point.ts // d.size + 1) * d.size
                if before >= end + d.lateness or end <= self.floor.get((d.name, point.key), folding.NEVER):
                    self.late.append((d.name, point))
                else:
                    self.open.setdefault((d, point.key, end), []).append(point.number)
        self.watermark = max([self.watermark, *(min(p.ts, delivery) for p in told)])
        self.heard = delivery
        self.close(lambda d, end: self.watermark >= end + d.lateness)

    def clock(self, now):
        self.close(lambda d, end: now >= self.heard + d.idle and now >= end)

    def close(self, closes):
        for d, key, end in sorted(self.open, key=lambda w: (w[2], w[0].name, w[1])):
            if closes(d, end):
                values = self.open.pop((d, key, end))
                value = float(self.value[d.aggregate](values))
                self.closed.append(Closed(d.name, key, end - d.size, end, d.aggregate, value, len(values)))
                self.floor[d.name, key] = max(end, self.floor.get((d.name, key), end))


@settings(max_examples=300, deadline=None)
@given(st.lists(message, max_size=40), st.data())
def test_windows_are_those_of_the_naive_reference(messages, data):
    naive, state, closed, late = Naive(DEFINITIONS), None, [], []
    now = 1000
    for gap, told in messages:
        now += gap + data.draw(st.sampled_from([0, 0, 0, 40]))
        told = [Point(key, now + shift, value) for key, shift, value in told]
        naive.clock(now)
        if state is not None and state.due is not None and state.due <= now:
            state, more, _ = expire(state, now, DEFINITIONS)
            closed += more
        naive.message(now, told)
        state, more, more_late = fold(state, told, now, DEFINITIONS)
        closed += more
        late += [(entry.window, entry.point) for entry in more_late]
    if state is not None:
        naive.clock(now + 1000)
        closed += expire(state, now + 1000, DEFINITIONS).closed
    assert closed == naive.closed
    assert late == naive.late
    assert len({(c.window, c.key, c.start) for c in closed}) == len(closed)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 5), numbers), min_size=1, max_size=60), st.data())
def test_any_order_within_the_lateness_gives_the_same_windows(readings, data):
    arrivals = sorted(((ts + delay, ts, value) for ts, delay, value in readings), key=lambda a: a[0])
    messages, rest = [], list(arrivals)
    while rest:
        n = data.draw(st.integers(1, len(rest)))
        taken, rest = rest[:n], rest[n:]
        messages.append((taken[-1][0], [Point("t", ts, value) for _, ts, value in taken]))
    closed, state = run(only(TEN), *messages)
    closed += expire(state, 10_000, only(TEN)).closed
    expected = [
        Closed("ten", "t", start, start + 10, "mean", fmean(v for _, v in group), 0)
        for start, group in itertools.groupby(sorted((ts - ts % 10, v) for ts, _, v in readings), key=lambda r: r[0])
        for group in [list(group)]
    ]
    assert [(c.start, c.value) for c in closed] == [(c.start, pytest.approx(c.value)) for c in expected]

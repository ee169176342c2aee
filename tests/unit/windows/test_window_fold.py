"""Windows against a naive reference, and what a device's watermark and silence do to them."""

import itertools
from statistics import fmean, pstdev, stdev

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpstream.messages import Point
from tpstream.windows import fold as folding
from tpstream.windows.definition import window
from tpstream.windows.fold import NOTHING, Closed, begun, expire, fold, fold_one
from tpstream.windows.older import read_older
from tpstream.windows.state import NEVER, Definitions, DeviceWindows, copied, kept, restored

TEN = window("ten", key="t", size="10ms", lateness="5ms", idle="30ms")
DEFINITIONS = Definitions.of(
    [
        TEN,
        window("each", key="*", size="7ms", aggregate="max", lateness=0, idle="20ms"),
        window("sums", key="h", size="25ms", aggregate="sum", lateness="40ms", idle="10ms"),
        window("slides", key="t", size="12ms", hop="4ms", aggregate="first", lateness="3ms", idle="25ms"),
        window("spread", key="*", size="20ms", hop="10ms", aggregate="stddevSamp", lateness="9ms", idle="50ms"),
    ]
)


def points(*pairs, key="t"):
    return [Point(key, ts, number) for ts, number in pairs]


def run(definitions, *messages, state=None):
    """Messages (delivery, points) in order; all that closed, and the state."""
    closed = []
    for delivery, folded_points in messages:
        state = state or begun(delivery, definitions)
        closed += fold(state, folded_points, delivery, definitions).closed
    return closed, state


def only(*windows):
    return Definitions.of(windows)


def test_a_window_closes_when_the_watermark_is_past_its_end_by_the_lateness():
    closed, state = run(only(TEN), (3, points((3, 1.0))), (9, points((9, 3.0))), (14, points((14, 7.0))))
    assert closed == []
    closed, late = fold(state, points((15, 8.0)), 15, only(TEN))
    assert closed == [Closed("ten", "t", 0, 10, "mean", 2.0, 2)]
    assert not late
    closed, late = fold(state, points((9, 99.0)), 16, only(TEN))
    assert not closed
    assert [(entry.window, entry.point.ts) for entry in late] == [("ten", 9)]


def test_the_watermark_never_passes_delivery():
    state = begun(12, only(TEN))
    assert fold(state, points((1_000_000, 1.0)), 12, only(TEN)) == ([], ())
    assert state.watermark == 12
    assert fold(state, points((11, 1.0)), 13, only(TEN)) == ([], ())


def test_nothing_is_said_of_a_point_in_an_open_window():
    state = begun(3, only(TEN))
    assert fold(state, points((3, 1.0)), 3, only(TEN)) is not NOTHING  # it opened: the state is due now
    assert fold(state, points((4, 1.0)), 4, only(TEN)) is NOTHING
    assert fold_one(state, "t", 5, 1.0, 5, only(TEN)) is NOTHING
    assert fold(state, points((6, 1.0), key="other"), 6, only(TEN)) is NOTHING


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
    closed, _ = expire(state, 34, only(TEN, day))
    assert (list(closed), state.due) == ([], 35)
    closed, _ = expire(state, 35, only(TEN, day))
    assert [c.window for c in closed] == ["ten"]
    assert state.due == 100
    closed, late = fold(state, points((8, 2.0)), 36, only(TEN, day))
    assert [entry.window for entry in late] == ["ten"]
    assert expire(state, 100, only(TEN, day)).closed == [Closed("day", "t", 0, 100, "mean", 1.5, 2)]


def test_a_message_puts_silence_off_although_due_stays():
    _, state = run(only(TEN), (5, points((5, 1.0))), (30, points((5, 2.0))))
    assert state.due == 35
    closed, _ = expire(state, 35, only(TEN))
    assert (list(closed), state.due) == ([], 60)


def test_a_device_with_nothing_open_is_never_due():
    _, state = run(only(TEN), (5, points((5, 1.0))))
    closed, _ = expire(state, 50, only(TEN))
    assert len(closed) == 1
    assert (state.due, state.closes) == (folding.FAR, folding.FAR)


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
    assert len(dict(state.items())) < 300


def test_another_lateness_or_idle_time_applies_to_open_windows():
    _, state = run(only(TEN), (3, points((3, 1.0))), (12, points((12, 3.0))))
    short = only(window("ten", key="t", size="10ms", lateness=0, idle="5ms"))
    closed, _ = expire(state, 13, short)
    assert [c.start for c in closed] == [0]
    assert state.due == 20


def test_open_windows_are_bounded_and_the_earliest_give_way(monkeypatch):
    monkeypatch.setattr(folding, "MAX_OPEN", 3)
    wide = only(window("w", key="*", size="10ms", lateness="1d"))
    closed, state = run(wide, (100, points((5, 1.0), (15, 2.0), (25, 3.0), (35, 4.0))))
    assert [c.start for c in closed] == [0]
    closed, late = fold(state, points((6, 1.0)), 101, wide)
    assert len(late) == 1


def test_a_copy_shares_nothing_that_changes():
    _, state = run(DEFINITIONS, (3, points((3, 1.0), (15, 2.0))), (4, points((4, 1.0), key="h")))
    copy, before = copied(state), msgspec.msgpack.encode(state)
    assert msgspec.msgpack.decode(before, type=DeviceWindows) == copy == state
    fold(state, points((5, 1.0), (16, 3.0), (200, 1.0)), 500, DEFINITIONS)
    fold(state, points((5, 1.0), key="new"), 501, DEFINITIONS)
    expire(state, 900, DEFINITIONS)
    fold(state, points((905, 1.0)), 905, only())
    assert msgspec.msgpack.encode(copy) == before


def test_a_hopping_window_takes_the_points_of_all_its_hops():
    slides = only(window("w", key="t", size="10ms", hop="5ms", aggregate="sum"))
    closed, state = run(slides, (1, points((1, 1.0))), (7, points((7, 2.0))), (13, points((13, 4.0))))
    assert [(c.start, c.end, c.value, c.count) for c in closed] == [(-5, 5, 1.0, 1), (0, 10, 3.0, 2)]
    closed = expire(state, 100_000, slides).closed
    assert [(c.start, c.end, c.value, c.count) for c in closed] == [(5, 15, 6.0, 2), (10, 20, 4.0, 1)]


def test_a_point_that_misses_one_window_counts_in_the_others_and_is_late_once():
    slides = only(window("w", key="t", size="10ms", hop="5ms", aggregate="sum"))
    _, state = run(slides, (1, points((1, 1.0))), (7, points((7, 2.0))))
    folded = fold(state, points((2, 10.0), (3, 20.0), (-9, 1.0)), 8, slides)
    assert [(late.window, late.point.ts) for late in folded.late] == [("w", 2), ("w", 3), ("w", -9)]
    closed = expire(state, 100_000, slides).closed
    assert [(c.start, c.value, c.count) for c in closed] == [(0, 33.0, 4), (5, 2.0, 1)]


def test_a_late_first_point_of_a_hop_opens_only_the_windows_that_are_open():
    slides = only(window("w", key="t", size="10ms", hop="5ms", aggregate="sum"))
    _, state = run(slides, (7, points((7, 2.0), key="other")))
    assert len(fold(state, points((2, 10.0)), 8, slides).late) == 1
    assert [(c.start, c.value) for c in expire(state, 100_000, slides).closed] == [(0, 10.0)]


def test_a_history_with_gaps_closes_only_windows_that_have_points():
    slides = only(window("w", key="t", size="10ms", hop="5ms", aggregate="count"))
    closed, state = run(slides, (1_000_000, points((1, 1.0), (500_000, 1.0), (999_999, 1.0))))
    closed += expire(state, 2_000_000, slides).closed
    assert [c.start for c in closed] == [-5, 0, 499_995, 500_000, 999_990, 999_995]


def test_the_standard_deviation_of_one_point():
    both = only(*(window(name, key="t", size="10ms", aggregate=name) for name in ("stddevSamp", "stddevPop")))
    closed, _ = run(both, (1, points((1, 5.0))), (10, points((10, 1.0))))
    assert [(c.aggregate, c.value) for c in closed] == [("stddevPop", 0.0), ("stddevSamp", None)]


def test_another_hop_closes_windows_as_they_are():
    _, state = run(only(TEN), (3, points((3, 1.0))))
    slides = only(window("ten", key="t", size="10ms", hop="5ms"))
    closed, state = run(slides, (12, points((12, 9.0))), (60, points((60, 9.0))), state=state)
    assert [(c.start, c.end) for c in closed] == [(0, 10), (10, 20)]
    back, state = run(only(TEN), (61, points((61, 9.0), (75, 1.0))), (200, points((200, 9.0))), state=state)
    starts = [c.start for c in [*closed, *back]]
    assert len(set(starts)) == len(starts)


OLD = (16, 17, "0123456789abcdef", 25, 46, {"ten": {"t": (10, "mean", 10, ((10, 20, 2, (3.0,)), (20, 30, 1, (5.0,))))},
       "end": {"t": (30, "last", NEVER, ((0, 30, 3, (7.0, 16)),))}})  # fmt: skip
"""A value as version 0.1 stored it."""


def test_windows_that_an_earlier_version_stored_go_on():
    state = read_older(msgspec.msgpack.encode(OLD))
    assert (state.watermark, state.heard, state.closes, state.due) == (16, 17, 25, 46)
    definitions = only(TEN, window("end", key="t", size="30ms", aggregate="last"))
    closed, late = fold(state, points((18, 5.0), (9, 1.0)), 18, definitions)
    assert (closed, [entry.window for entry in late]) == ([], ["ten"])
    assert expire(state, 100_000, definitions).closed == [
        Closed("ten", "t", 10, 20, "mean", 8 / 3, 3),
        Closed("end", "t", 0, 30, "last", 5.0, 5),
        Closed("ten", "t", 20, 30, "mean", 5.0, 1),
    ]


def test_what_is_of_another_shape_is_no_older_value():
    with pytest.raises(msgspec.DecodeError):
        read_older(msgspec.msgpack.encode({"some": "thing"}))
    with pytest.raises(msgspec.DecodeError):  # so that the table asks read_older
        msgspec.msgpack.decode(msgspec.msgpack.encode(OLD), type=DeviceWindows)


# Against a naive reference

numbers = st.integers(-50, 50).map(float)
message = st.tuples(
    st.integers(0, 12),  # ms since the message before
    st.lists(st.tuples(st.sampled_from("th"), st.integers(-60, 30), numbers), max_size=3),  # key, ts - delivery, value
)


class Naive:
    """Every window as the list of its points; each rule of closing written out plainly."""

    def __init__(self, definitions):
        self.definitions = list(definitions.by_name.values())
        self.open, self.floor = {}, {}
        self.watermark = self.heard = NEVER
        self.closed, self.late = [], []

    def message(self, delivery, told):
        before = self.watermark
        for point in told:
            for d in self.definitions:
                if d.key not in ("*", point.key):
                    continue
                ends = [e for e in range(point.ts + 1, point.ts + d.size + 1) if e % d.hop == 0]
                floor = self.floor.get((d.name, point.key), NEVER)
                taken = [e for e in ends if before < e + d.lateness and e > floor]
                if taken != ends:
                    self.late.append((d.name, point))
                for end in taken:
                    self.open.setdefault((d, point.key, end), []).append(point)
        self.watermark = max([self.watermark, *(min(p.ts, delivery) for p in told)])
        self.heard = delivery
        self.close(lambda d, end: self.watermark >= end + d.lateness)

    def clock(self, now):
        self.close(lambda d, end: now >= self.heard + d.idle and now >= end)

    def close(self, closes):
        for d, key, end in sorted(self.open, key=lambda w: (w[2], w[0].name, w[1])):
            if closes(d, end):
                taken = self.open.pop((d, key, end))
                value = pytest.approx(PLAIN[d.aggregate](taken), abs=1e-9)
                self.closed.append((d.name, key, end - d.size, end, d.aggregate, value, len(taken)))
                self.floor[d.name, key] = max(end, self.floor.get((d.name, key), end))


def _of_numbers(function):
    return lambda taken: function([point.number for point in taken])


PLAIN = {
    "mean": _of_numbers(fmean),
    "sum": _of_numbers(sum),
    "min": _of_numbers(min),
    "max": _of_numbers(max),
    "count": len,
    "first": lambda taken: min(taken, key=lambda point: point.ts).number,
    "last": lambda taken: max(taken, key=lambda point: point.ts).number,  # max() keeps the first of equals
    "stddevSamp": _of_numbers(lambda values: stdev(values) if len(values) > 1 else None),
    "stddevPop": _of_numbers(pstdev),
}


def survive(state, data):
    """Whatever may happen to a state between two messages: nothing, storing and loading, undoing."""
    fate = data.draw(st.sampled_from(["stays", "stored", "undone"]))
    if fate == "stored":
        return msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=DeviceWindows)
    if fate == "undone":
        before = kept(state)
        fold(state, [Point("t", 1_000 + n * 3, 9.0) for n in range(40)], 5_000, DEFINITIONS)
        return restored(before)
    return state


@settings(max_examples=400, deadline=None)
@given(st.lists(message, max_size=40), st.data())
def test_windows_are_those_of_the_naive_reference(messages, data):
    naive, state, closed, late = Naive(DEFINITIONS), None, [], []
    now = 1000
    for gap, told in messages:
        now += gap + data.draw(st.sampled_from([0, 0, 0, 40]))
        told = [Point(key, now + shift, value) for key, shift, value in told]
        naive.clock(now)
        if state is not None and state.due <= now:
            closed += expire(state, now, DEFINITIONS).closed
        naive.message(now, told)
        state = begun(now, DEFINITIONS) if state is None else survive(state, data)
        if len(told) == 1:
            more, more_late = fold_one(state, told[0].key, told[0].ts, told[0].number, now, DEFINITIONS)
        else:
            more, more_late = fold(state, told, now, DEFINITIONS)
        closed += more
        late += [(entry.window, entry.point) for entry in more_late]
    if state is not None:
        naive.clock(now + 1000)
        closed += expire(state, now + 1000, DEFINITIONS).closed
        assert all(not one.count and not one.others for _, known in state.items() for one in known.all())
    assert [msgspec.structs.astuple(c) for c in closed] == naive.closed
    assert late == naive.late
    assert len({(c.window, c.key, c.start) for c in closed}) == len(closed)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(PLAIN)),
    st.sampled_from([(1, 1), (2, 1), (6, 2), (4, 4)]),
    st.lists(message, min_size=1, max_size=25),
)
def test_every_aggregate_and_hop_is_that_of_the_naive_reference(aggregate, shape, messages):
    size, hop = shape
    definitions = only(
        window("w", key="t", size=size * 5 / 1000, hop=hop * 5 / 1000, aggregate=aggregate, lateness="4ms")
    )
    naive, state, closed, now = Naive(definitions), begun(0, definitions), [], 1000
    for gap, told in messages:
        now += gap
        told = [Point(key, now + shift, value) for key, shift, value in told]
        naive.message(now, told)
        closed += fold(state, told, now, definitions).closed
    naive.clock(now + 100_000)
    closed += expire(state, now + 100_000, definitions).closed
    assert [msgspec.structs.astuple(c) for c in closed] == naive.closed


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

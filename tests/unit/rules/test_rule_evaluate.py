"""A rule raises once, clears once, and commands with each: whatever is repeated or comes late."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.messages import AlarmState, WindowResult
from tpstream.rules.definition import parse
from tpstream.rules.evaluate import evaluate, identifier, removed
from tpstream.rules.state import RuleState

RULE = parse(
    """
rule: too-hot
window: mean
raise: {above: 30, for: 2}
clear: {below: 28}
severity: critical
on_raise: {command: fan, params: {on: true}}
on_clear: {command: fan, params: {on: false}, device: fan-7}
""",
    "r.yaml",
)


def result(start, value, key="t", device="d1"):
    return WindowResult("mean", device, key, start, start + 10, "mean", value, 3, start + 12)


def follow(values, rule=RULE, state=None):
    """The alarms and commands of windows at 0, 10, 20, …"""
    alarms, commands = [], []
    for n, value in enumerate(values):
        state, alarm, more = evaluate(rule, state, result(n * 10, value), f"origin-{n}")
        alarms += [alarm] if alarm else []
        commands += more
    return alarms, commands, state


@pytest.mark.parametrize(
    ("values", "states"),
    [
        ([31.0], ""),
        ([31.0, 31.0], "a"),
        ([31.0, 29.0, 31.0], ""),
        ([31.0, None, 31.0], ""),
        ([30.0, 30.0], ""),  # above is strictly above
        ([31.0, 31.0, 31.0, 31.0], "a"),
        ([31.0, 31.0, 29.0, 28.0], "a"),  # between the bounds, and at the bound
        ([31.0, 31.0, None], "a"),
        ([31.0, 31.0, 27.0], "ac"),
        ([31.0, 31.0, 27.0, 27.0], "ac"),
        ([31.0, 31.0, 27.0, 31.0], "ac"),
        ([31.0, 31.0, 27.0, 31.0, 31.0], "aca"),
    ],
)
def test_raises_once_and_clears_once(values, states):
    alarms, commands, _ = follow(values)
    assert "".join(alarm.state[0] for alarm in alarms) == states
    assert [c.params for c in commands] == ['{"on":true}' if s == "a" else '{"on":false}' for s in states]


def test_an_alarm_and_its_commands():
    (raised, cleared), (on, off), _ = follow([31.0, 32.0, 20.0])
    assert (raised.rule, raised.device, raised.severity, raised.value) == ("too-hot", "d1", "critical", 32.0)
    assert (raised.state, raised.version, raised.started_at, raised.ended_at) == (AlarmState.ACTIVE, 1, 22, None)
    assert cleared.id == raised.id
    assert (cleared.state, cleared.version, cleared.started_at, cleared.ended_at) == (AlarmState.CLEARED, 2, 22, 32)
    details = msgspec.json.decode(cleared.details)
    assert (details["raised"]["start"], details["raised"]["value"]) == (10, 32.0)
    assert (details["cleared"]["start"], details["cleared"]["value"]) == (20, 20.0)
    assert (on.device, on.method, on.source, on.created_at) == ("d1", "fan", "rule:too-hot", 22)
    assert (off.device, off.created_at) == ("fan-7", 32)


def test_ids_are_short_the_same_again_and_never_shared():
    first, second = follow([31.0, 32.0, 20.0]), follow([31.0, 32.0, 20.0])
    assert first == second
    ids = {item.id for item in (*first[0][:1], *first[1])}
    assert len(ids) == 3
    assert all(re.fullmatch(r"[0-9A-Za-z-]{36}", i) for i in ids)
    assert identifier("a", "b", "c") != identifier("a", "bc")
    other_key = evaluate(RULE, RuleState("mean", 0, 1), result(10, 31.0, key="u"), "origin-1").alarm
    assert other_key.id not in ids


def test_an_alarm_stays_active_over_a_restart():
    _, _, state = follow([31.0, 31.0])
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=RuleState)
    _, alarm, commands = evaluate(RULE, stored, result(20, 35.0), "o")
    assert (alarm, commands) == (None, ())
    assert evaluate(RULE, stored, result(20, 20.0), "o").alarm.state is AlarmState.CLEARED


def test_another_window_counts_anew_and_an_active_alarm_stays():
    _, _, state = follow([31.0, 31.0])
    moved = msgspec.structs.replace(RULE, window="other")
    state, alarm, _ = evaluate(moved, state, result(0, 29.0), "o")
    assert (state.window, state.newest, alarm) == ("other", 0, None)
    assert state.alarm is not None
    assert evaluate(moved, RuleState("mean", 0, 1), result(0, 31.0), "o").alarm is None


def test_a_removed_rules_alarm_is_cleared_with_the_reason():
    (raised,), _, _ = follow([31.0, 31.0])
    cleared = removed(raised, 99)
    assert (cleared.id, cleared.state, cleared.ended_at, cleared.version) == (raised.id, AlarmState.CLEARED, 99, 2)
    assert msgspec.json.decode(cleared.details)["cleared"] == {"reason": "rule removed"}


values = st.one_of(st.none(), st.sampled_from([20.0, 27.9, 28.0, 29.0, 30.0, 30.1, 40.0]))


@given(st.lists(values, max_size=40), st.integers(1, 4), st.data())
def test_whatever_is_repeated_or_comes_late_changes_nothing(readings, times, data):
    rule = msgspec.structs.replace(RULE, raise_for=times)
    state, told = None, []
    for n, value in enumerate(readings):
        state, alarm, commands = evaluate(rule, state, result(n * 10, value), f"o{n}")
        told += [alarm, *commands] if alarm else []
        for back in data.draw(st.lists(st.integers(0, n), max_size=2)):
            again, alarm, commands = evaluate(rule, state, result(back * 10, data.draw(values)), "again")
            assert (again, alarm, commands) == (state, None, ())
    # Raised and cleared in turn, each raise after `times` windows in a row.
    states = [t.state for t in told if hasattr(t, "started_at")]
    assert states == [AlarmState.ACTIVE, AlarmState.CLEARED] * (len(states) // 2) + [AlarmState.ACTIVE] * (
        len(states) % 2
    )
    active, held, expected = False, 0, 0
    for value in readings:
        if active and value is not None and value < 28:
            active, held, expected = False, 0, expected + 1
        elif not active:
            held = held + 1 if value is not None and value > 30 else 0
            if held == times:
                active, held, expected = True, 0, expected + 1
    assert len(states) == expected

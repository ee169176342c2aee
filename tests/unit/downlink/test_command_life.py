"""A command's life: told in rising versions, sent at most as often as allowed, ended once."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpstream.downlink import state as bounds
from tpstream.downlink.life import Connection, Passed, Publish, Requested, Unknown, plan
from tpstream.downlink.state import DeviceCommands
from tpstream.messages import CommandRequest, CommandState, CommandStatus, Response

ENDS = {"SUCCEEDED", "REFUSED", "TIMED_OUT", "EXPIRED", "FAILED"}


def requested(id, *, created=0, timeout=10, limit=3, expires=1000, failure="", params=""):
    request = CommandRequest(id, "d1", "fan", created, params)
    return Requested(request, b"" if failure else b"payload-" + id.encode(), failure, timeout, limit, expires)


def answer(id, result=0, text='{"result":0}', what="response"):
    return Response("d1", id, what, result, text)


def follow(*events, state=None):
    """Events as (clock, event); what was told and sent, as short texts, and the state."""
    told = []
    for clock, event in events:
        state, effects = plan(state, event, clock)
        for effect in effects:
            match effect:
                case CommandStatus():
                    told.append(f"{effect.id} {effect.state}")
                case Publish():
                    told.append(f"{effect.id} >")
                case Unknown():
                    told.append(f"{effect.response.message_id} ?")
    return told, state


BEGIN = ["a QUEUED", "a ENCODED", "a ENCODED", "a >"]
"""Taken, encoded, and sent for the first time."""


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (
            [(5, answer("a", what="sent")), (6, answer("a", what="receipt")), (7, answer("a"))],
            "SENT DELIVERED SUCCEEDED",
        ),
        ([(5, answer("a", what="receipt")), (6, answer("a", what="sent"))], "DELIVERED"),
        ([(5, answer("a", 1))], "REFUSED"),
        ([(5, answer("a")), (6, answer("a", 1, "{}")), (7, answer("a", what="receipt"))], "SUCCEEDED SUCCEEDED"),
        ([(9, Passed())], ""),
        ([(10, Passed())], "ENCODED >"),
        ([(10, Passed()), (20, Passed()), (30, Passed()), (40, Passed())], "ENCODED > ENCODED > TIMED_OUT"),
        ([(5, answer("a", what="receipt")), (10, Passed())], "DELIVERED TIMED_OUT"),
        ([(5, answer("a", what="sent")), (10, Passed())], "SENT SENT >"),
        ([(2000, Passed())], "TIMED_OUT"),  # sent, and now expired
        ([(5, Connection(False, 5)), (10, Passed()), (50, Passed()), (60, Connection(True, 60))], "ENCODED >"),
        ([(5, Connection(True, 5))], "ENCODED >"),  # lost with the connection before
        ([(5, Connection(True, 0))], ""),  # sent after it had come
        ([(5, answer("a", what="receipt")), (6, Connection(True, 6))], "DELIVERED"),
    ],
)
def test_what_becomes_of_a_command_that_was_sent(events, expected):
    told, _ = follow((0, requested("a")), *events)
    assert told[:4] == BEGIN
    assert " ".join(line.removeprefix("a ") for line in told[4:]) == expected


def test_one_is_in_flight_and_the_others_wait_in_order():
    told, state = follow((1, requested("a")), (2, requested("b")), (3, requested("c")))
    assert [line for line in told if ">" in line] == ["a >"]
    told, state = follow((4, answer("a")), (5, answer("b", 1)), (6, answer("c")), state=state)
    assert told == ["a SUCCEEDED", "b ENCODED", "b >", "b REFUSED", "c ENCODED", "c >", "c SUCCEEDED"]
    assert state.due is None


def test_an_offline_device_is_waited_for_until_the_command_expires():
    told, state = follow((1, Connection(False, 1)), (2, requested("a")), (3, requested("b", expires=50)))
    assert told == ["a QUEUED", "a ENCODED", "b QUEUED", "b ENCODED"]
    assert state.due == 50
    told, state = follow((50, Passed()), (60, Connection(True, 60)), state=state)
    assert told == ["b EXPIRED", "a ENCODED", "a >"]


def test_an_older_word_on_the_connection_changes_nothing():
    told, _ = follow((9, Connection(True, 9)), (10, Connection(False, 5)), (11, requested("a")))
    assert told == BEGIN


def test_nothing_is_sent_after_its_expiry():
    assert follow((1000, requested("a")))[0] == ["a QUEUED", "a ENCODED", "a EXPIRED"]


def test_at_most_once():
    told, _ = follow((0, requested("a", limit=1)), (5, Connection(True, 5)), (10, Passed()))
    assert told == [*BEGIN, "a TIMED_OUT"]


def test_what_cannot_be_encoded_fails_and_holds_up_nobody():
    told, state = follow((1, requested("a", failure="script: no")), (2, requested("b")))
    assert told[:3] == ["a QUEUED", "a FAILED", "b QUEUED"]
    assert msgspec.json.decode(state.ended["a"].status.result) == {"reason": "script: no"}


def test_the_queue_is_bounded_in_commands_and_bytes():
    events = [(1, Connection(False, 1)), *((2, requested(str(n))) for n in range(bounds.MAX_QUEUED + 1))]
    told, state = follow(*events)
    assert told[-2:] == [f"{bounds.MAX_QUEUED - 1} ENCODED", f"{bounds.MAX_QUEUED} FAILED"]
    assert len(state.queue) == bounds.MAX_QUEUED
    big = '"' + "x" * bounds.MAX_QUEUED_BYTES + '"'
    assert follow((2, requested("big", params=big)))[0] == ["big FAILED"]


def test_a_repeated_request_changes_nothing_alive_or_ended():
    _, state = follow((1, requested("a")))
    assert follow((2, requested("a")), state=state) == ([], state)
    _, state = follow((3, answer("a")), state=state)
    assert follow((4, requested("a")), state=state) == ([], state)


def test_an_answer_to_nothing_is_unknown_but_a_receipt_is_not():
    assert follow((1, answer("x")))[0] == ["x ?"]
    assert follow((1, answer("x", what="receipt")), (1, answer("x", what="sent")))[0] == []


def test_later_answers_are_kept_beside_the_first_end():
    _, state = follow((1, requested("a", limit=1)), (20, Passed()))
    planned = plan(state, answer("a", 0, '{"result":0,"later":7}'), 25)
    (status,) = planned.effects
    assert (status.state, status.version) == (CommandState.TIMED_OUT, state.ended["a"].status.version + 1)
    assert msgspec.json.decode(status.result) == {
        "first": {"reason": "no answer in time"},
        "later": [{"result": 0, "later": 7}],
    }
    assert plan(planned.state, answer("a", 0, '{"result":0,"later":7}'), 26).effects == []
    state = planned.state
    for n in range(10):
        state, effects = plan(state, answer("a", 1, str(n)), 30)
    assert len(state.ended["a"].later) == bounds.MAX_LATER
    assert effects == []


def test_ended_ids_are_remembered_for_a_week_and_bounded(monkeypatch):
    monkeypatch.setattr(bounds, "MAX_REMEMBERED", 4)
    monkeypatch.setattr(bounds, "MAX_KEPT", 2)
    state = None
    for n in range(6):
        _, state = follow((n, requested(str(n))), (n, answer(str(n))), state=state)
    assert list(state.ended) == ["2", "3", "4", "5"]
    assert [id for id, ended in state.ended.items() if ended.status] == ["4", "5"]
    week = bounds.REMEMBERED_MS + 4
    _, state = follow((week, requested("n", created=week, expires=week + 9)), (week, answer("n")), state=state)
    assert list(state.ended) == ["5", "n"]


# Whatever happens

ids = st.sampled_from(["a", "b", "c", "d"])
event = st.one_of(
    st.builds(
        lambda id, limit, timeout, life, failed: (
            lambda now: requested(
                id, created=now, timeout=timeout, limit=limit, expires=now + life, failure="no" * failed
            )
        ),
        ids,
        st.integers(1, 3),
        st.integers(1, 30),
        st.integers(0, 100),
        st.sampled_from([False, False, False, True]),
    ),
    st.builds(
        lambda id, what, result: lambda now: answer(id, result, str(result), what),
        ids,
        st.sampled_from(["sent", "receipt", "response"]),
        st.integers(0, 1),
    ),
    st.builds(lambda online: lambda now: Connection(online, now), st.booleans()),
    st.just(lambda now: Passed()),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 25), event), max_size=40))
def test_invariants(steps):
    state, now, told, sends, limits, expiries, online = None, 0, {}, [], {}, {}, None
    for gap, make in [*steps, *[(60, lambda now: Passed())] * 20]:
        now += gap
        event = make(now)
        if isinstance(event, Requested) and event.request.id not in limits:
            limits[event.request.id], expiries[event.request.id] = event.limit, event.expires_at
        if isinstance(event, Connection):
            online = event.online
        before = msgspec.msgpack.encode(state)
        planned = plan(state, event, now)
        assert msgspec.msgpack.encode(state) == before, "state was changed in place"
        for effect in planned.effects:
            if isinstance(effect, CommandStatus):
                told.setdefault(effect.id, []).append(effect)
            elif isinstance(effect, Publish):
                assert online is not False, "sent to a device known to be offline"
                assert now < expiries[effect.id], "sent after it expired"
                assert told[effect.id][-1].state not in ENDS, "sent after its end"
                sends.append(effect.id)
        state = planned.state
        assert sum(command.deadline is not None for command in state.queue[1:]) == 0, "two in flight"
        assert state.due is None or state.due > now, "due, and not done"
        again = plan(state, event, now)
        unknown = [e for e in again.effects if not isinstance(e, Unknown)]
        assert (again.state, unknown) == (state, []), "a replayed event changed something"
        stored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=DeviceCommands)
        assert stored == state
    assert state.queue == (), "something never ends"
    for id, statuses in told.items():
        versions = [status.version for status in statuses]
        assert versions == sorted(set(versions)), "versions rise"
        ends = [status.state for status in statuses if status.state in ENDS]
        assert len(set(ends)) == 1, "ended, and once"
        assert statuses[-1].state in ENDS
        assert sends.count(id) <= limits[id]
        assert statuses[-1].attempts == sends.count(id)
        if ends[0] == "EXPIRED":
            assert sends.count(id) == 0
        if ends[0] == "TIMED_OUT":
            assert sends.count(id) >= 1
    first_sends = list(dict.fromkeys(sends))
    assert first_sends == [id for id in told if id in first_sends], "sent in the order of the requests"

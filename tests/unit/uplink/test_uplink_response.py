"""A device's answer to a command."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.messages import Response
from tpstream.uplink.response import decode
from tpstream.uplink.values import Problem


@pytest.mark.parametrize(
    ("payload", "result"),
    [
        (b'{"result":0,"errcode":"","message":"","ts":1609143039,"method":"fan"}', 0),
        (b'{"result":1,"errcode":"E7","message":"stuck"}', 1),
        (b'{"result":"0"}', 0),
        (b'{"result":"1"}', 1),
        (b'{"result":0.0}', 0),
        (b'{"result":2}', 1),
        (b'{"result":"ok"}', 1),
        (b'{"result":false}', 1),
        (b'{"result":null}', 1),
        (b'{"result":[0]}', 1),
        (b"{}", 1),
    ],
)
def test_what_counts_as_success(payload: bytes, result: int) -> None:
    answer = decode(payload, "d1", "c1", 5)
    assert answer == Response("d1", "c1", "response", result, payload.decode(), 5)


def test_its_text_is_kept_and_stays_readable() -> None:
    answer = decode(b'{"result": 3, "n": 123456789012345678901, "m": "\\ud800"}', "d1", "c1", 5)
    assert isinstance(answer, Response)
    assert answer.text == '{"result":3,"n":123456789012345678901,"m":"\ufffd"}'


@pytest.mark.parametrize(
    ("payload", "message_id", "reason"),
    [
        (b"", "c1", "empty"),
        (b"ok", "c1", "response"),
        (b"0", "c1", "response"),
        (b'[{"result":0}]', "c1", "response"),
        (b"\xff", "c1", "response"),
        (b"[" * 200 + b"]" * 200, "c1", "nesting"),
        (b'{"result":0}', "", "message_id"),
    ],
)
def test_what_is_no_answer(payload: bytes, message_id: str, reason: str) -> None:
    answer = decode(payload, "d1", message_id, 5)
    assert isinstance(answer, Problem)
    assert answer.reason == reason


@given(st.binary(max_size=100))
def test_any_bytes_are_an_answer_or_a_problem(payload: bytes) -> None:
    assert isinstance(decode(payload, "d1", "c1", 5), (Response, Problem))

"""The script process's own rules, without a process: what it answers, and when it stops."""

import os
from collections.abc import Iterator

import pytest

from tpstream.lua.frames import LENGTH, Reply, Request, decode_reply
from tpstream.lua.process import MAX_SANDBOXES, Process
from tpstream.lua.sandbox import Budget, Status

ECHO = "function decode(m) if m == 'loop' then while true do end end return m end"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


def answers(reading: int) -> Reply:
    return decode_reply(os.read(reading, LENGTH.unpack(os.read(reading, LENGTH.size))[0]))


def test_a_request_ends_at_an_offence_and_its_runtime_is_thrown_away(pipe: tuple[int, int]) -> None:
    process = Process(Budget(), 100, pipe[1])
    calls = [("a@1", b"decode", msg, b"t") for msg in (b"1", b"loop", b"2")]
    process.run(Request({"a@1": ECHO}, calls))
    assert answers(pipe[0]) == [(Status.OK, b"1"), (Status.CPU, b"")]
    assert "a@1" not in process.sandboxes
    process.run(Request({}, calls[2:]))
    assert answers(pipe[0]) == [(Status.OK, b"2")]


def test_one_by_one_each_call_is_answered_at_once(pipe: tuple[int, int]) -> None:
    process = Process(Budget(), 100, pipe[1])
    process.run(Request({"a@1": ECHO}, [("a@1", b"decode", b"1", b"t"), ("a@1", b"decode", b"2", b"t")], True))
    assert answers(pipe[0]) == [(Status.OK, b"1")]
    assert answers(pipe[0]) == [(Status.OK, b"2")]


def test_a_script_that_does_not_compile_fails_its_call(pipe: tuple[int, int]) -> None:
    Process(Budget(), 100, pipe[1]).run(Request({"a@1": "x = ="}, [("a@1", b"decode", b"", b"t")]))
    ((status, text),) = answers(pipe[0])
    assert status == Status.ERROR
    assert b"line 1" in text


def test_it_keeps_a_bounded_number_of_runtimes_and_makes_them_again(pipe: tuple[int, int]) -> None:
    process = Process(Budget(), 100, pipe[1])
    names = [f"a@{n}" for n in range(MAX_SANDBOXES + 2)]
    for name in [*names, names[0]]:
        process.run(Request({name: ECHO}, [(name, b"decode", b"x", b"t")]))
        assert answers(pipe[0]) == [(Status.OK, b"x")]
    assert len(process.sandboxes) == MAX_SANDBOXES

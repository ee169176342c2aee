"""require("json") within scripts: numbers, arrays and objects come out right."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.lua.sandbox import Budget, Sandbox, Status

ECHO = Sandbox(
    'local json = require("json") function encodeInp(m) return json.encode(json.decode(m)) end',
    Budget(cpu_ms=1000, memory_bytes=50_000_000),
)


def echo(text: str) -> tuple[int, str]:
    status, answer = ECHO.call(b"decode", text.encode("utf-8", "surrogatepass"), b"t")
    return status, answer.decode("utf-8", "replace")


def written(expression: str) -> str:
    source = f'local json = require("json") function encodeInp(m) return json.encode({expression}) end'
    status, answer = Sandbox(source, Budget()).call(b"decode", b"", b"t")
    return answer.decode() if status == Status.OK else f"error: {answer.decode()}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", "1"),
        ("-0.5", "-0.5"),
        ("21.0", "21"),
        ("0.1", "0.1"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1e300", "1e+300"),
        ("9223372036854775807", "9223372036854775807"),
        ("9007199254740993", "9007199254740993"),
        ("true", "true"),
        ("null", "null"),
        ('""', '""'),
        ('"a\\u00e9\\n\\"\\\\/"', '"aé\\n\\"\\\\/"'),
        ('"\\ud83d\\ude00"', '"😀"'),
        ('"\\ud800x"', '"\ufffdx"'),
        ('"\\u0000"', '"\\u0000"'),
        ('"\x7f"', '"\\u007f"'),
        ("[]", "[]"),
        ("{}", "{}"),
        ("[[],{}]", "[[],{}]"),
        ("[1,null,3]", "[1,null,3]"),
        ('{"b":1,"a":{"c":[]}}', '{"a":{"c":[]},"b":1}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        (' { "a" : [ 1 , 2 ] } ', '{"a":[1,2]}'),
    ],
)
def test_what_is_read_is_written_again(text: str, expected: str) -> None:
    assert echo(text) == (Status.OK, expected)


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "{", "[1,]", '{"a"}', '{"a":}', "{a:1}", "nul", "tru", "01", "-", "1.", "NaN", "Infinity"],
        *['"', '"\\x"', '"\\u12"', '"\n"', '"a\\n\n"', "1 2", "[1 2]", "'a'"],
        *["[" * 129 + "]" * 129, "[" * 100_000],
    ],
)
def test_what_is_no_json_is_an_error_that_says_where(text: str) -> None:
    status, detail = echo(text)
    assert status == Status.ERROR
    assert detail.startswith("json: ")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("{}", "{}"),
        ("{1, 2}", "[1,2]"),
        ("{[2] = 1}", '{"2":1}'),
        ("{1, x = 2}", '{"1":1,"x":2}'),
        ("{[1.5] = 1}", '{"1.5":1}'),
        ("{a = json.null}", '{"a":null}'),
        ("{a = 1e15, b = 2^53, c = -1/8}", '{"a":1000000000000000,"b":9.007199254741e+15,"c":-0.125}'),
        ("1/0", "error: json: inf is not JSON"),
        ("{x = 0/0}", "error: json: -nan is not JSON"),
        ("{x = print}", "error: json: a value of type function cannot be written"),
        ("{[true] = 1}", "error: json: a key of type boolean cannot be written"),
        ('{["a\\"b"] = "c\\1"}', '{"a\\"b":"c\\u0001"}'),
    ],
)
def test_lua_values(expression: str, expected: str) -> None:
    assert written(expression) in (expected, expected.replace("9.007199254741e+15", "9007199254740992"))


def test_a_circle_is_an_error() -> None:
    source = 'function decode(m) local t = {} t.t = t return require("json").encode(t) end'
    assert Sandbox(source, Budget()).call(b"decode", b"", b"")[0] == Status.ERROR


_values = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=15,
)


@given(_values)
def test_any_value_comes_back_equal(value: Any) -> None:
    status, text = echo(json.dumps(value))
    assert status == Status.OK
    assert json.loads(text) == value


@given(st.text(max_size=30))
def test_any_text_is_read_as_python_reads_it(text: str) -> None:
    status, answer = echo(text)
    try:
        value = json.loads(text, parse_int=lambda digits: int(digits) if abs(int(digits)) < 2**63 else float(digits))
    except (ValueError, RecursionError):
        assert status == Status.ERROR
    else:
        if status == Status.OK and value is not None:
            assert json.loads(answer) == value

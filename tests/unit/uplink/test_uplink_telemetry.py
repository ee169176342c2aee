"""What becomes of a telemetry payload: the rules of docs/protocol.md, one row each."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tpstream.messages import Point
from tpstream.uplink.telemetry import Decoded, decode
from tpstream.uplink.times import DAY_MS, Limits
from tpstream.uplink.values import points_of

NOW = 1_700_000_000_000
LIMITS = Limits()
YEAR = Limits(retention_ms=365 * DAY_MS)


def told(payload: bytes | str, limits: Limits = LIMITS, *, script: bool = False) -> Decoded:
    data = payload if isinstance(payload, bytes) else payload.encode()
    return decode(data, NOW, limits, script=script)


def only(payload: bytes | str) -> Point:
    found = told(payload)
    assert not found.problems
    assert not found.late
    (point,) = found.points
    return point


def number(key: str, value: float, ts: int = NOW, *, device_time: bool = False, text: str = "") -> Point:
    return Point(key, ts, value, text, "number", "device" if device_time else "delivery")


@pytest.mark.parametrize(
    ("payload", "points"),
    [
        ('{"t":21.5,"h":60}', [number("t", 21.5), number("h", 60.0)]),
        ('{"ts":1700000000000,"values":{"t":1}}', [number("t", 1.0, NOW, device_time=True)]),
        ('{"values":{"t":1},"ts":1699999999000}', [number("t", 1.0, NOW - 1000, device_time=True)]),
        ('{"values":{"t":1}}', [number("t", 1.0)]),
        ('{"ts":null,"values":{"t":1}}', [number("t", 1.0)]),
        (
            '[{"ts":1700000000000,"values":{"t":1}},{"ts":1699999999000,"values":{"t":2}}]',
            [number("t", 1.0, NOW, device_time=True), number("t", 2.0, NOW - 1000, device_time=True)],
        ),
        ("[]", []),
        ("{}", []),
        # The form with time only where nothing but ts stands beside an object `values`.
        ('{"ts":5,"t":1}', [number("ts", 5.0), number("t", 1.0)]),
        ('{"ts":5,"values":7}', [number("ts", 5.0), number("values", 7.0)]),
        (
            '{"ts":5,"values":{"t":1},"x":1}',
            [number("ts", 5.0), Point("values", NOW, None, '{"t":1}', "json", "delivery"), number("x", 1.0)],
        ),
    ],
)
def test_forms(payload: str, points: list[Point]) -> None:
    found = told(payload)
    assert list(found.points) == points
    assert not found.problems


@pytest.mark.parametrize(
    ("ts", "expected"),
    [
        ("1700000000", NOW),
        ("1700000000.25", NOW + 250),
        ('"1700000000"', NOW),
        ('"1700000000000"', NOW),
        ('"1700000000.5"', NOW + 500),
        ("1700000000000.6", NOW + 1),
        ("1.7e9", NOW),
        ("0", 0),
        ("99999", 99_999_000),
        ("100000000000", 100_000_000_000),
    ],
)
def test_times_that_are_taken(ts: str, expected: int) -> None:
    assert only(f'{{"ts":{ts},"values":{{"t":1}}}}') == number("t", 1.0, expected, device_time=True)


@pytest.mark.parametrize(
    ("ts", "reason"),
    [
        ("true", "time"),
        ('""', "time"),
        ('"yesterday"', "time"),
        ('" 5"', "time"),
        ('"-5"', "time"),
        ('"1e9"', "time"),
        ('"٣"', "time"),
        ("-1", "time"),
        ("[]", "time"),
        ("{}", "time"),
        ("100000000000000", "time"),
        ("1e400", "time"),
        ("9" * 5000, "time"),
        (f'"{"9" * 5000}"', "time"),
        (str(NOW + DAY_MS + 1), "clock"),
        ("99999999999", "clock"),
    ],
)
def test_times_that_are_dead_letters(ts: str, reason: str) -> None:
    found = told(f'{{"ts":{ts},"values":{{"t":1}}}}')
    assert [p.reason for p in found.problems] == [reason]
    assert not found.points


def test_just_a_day_ahead_is_taken() -> None:
    assert only(f'{{"ts":{NOW + DAY_MS},"values":{{"t":1}}}}').ts == NOW + DAY_MS


def test_what_is_older_than_the_retention_is_late() -> None:
    old, kept = NOW - 366 * DAY_MS, NOW - 364 * DAY_MS
    found = told(f'[{{"ts":{old},"values":{{"t":1}}}},{{"ts":{kept},"values":{{"t":2}}}}]', YEAR)
    assert [p.ts for p in found.late] == [old]
    assert [p.ts for p in found.points] == [kept]
    assert not told(f'{{"ts":{old},"values":{{"t":1}}}}').late, "retention 0 keeps all"


def test_the_good_elements_of_a_history_are_kept_and_the_bad_ones_named() -> None:
    found = told(
        '[{"ts":1,"values":{"t":1}},7,{"ts":"x","values":{"t":2}},{"ts":9e10,"values":{"t":3}},'
        '{"values":{"t":4},"x":1},{"ts":2,"values":{"t":5}}]'
    )
    assert [p.number for p in found.points] == [1.0, 5.0]
    assert [(p.element, p.reason) for p in found.problems] == [(1, "form"), (2, "time"), (3, "clock"), (4, "form")]


@pytest.mark.parametrize(
    ("value", "kind", "as_number", "text"),
    [
        ("1", "number", 1.0, ""),
        ("-1.5e3", "number", -1500.0, ""),
        ("true", "bool", 1.0, ""),
        ("false", "bool", 0.0, ""),
        ('"on"', "text", None, "on"),
        ('""', "text", None, ""),
        ("null", "json", None, "null"),
        ('[1, "a", {"b": null}]', "json", None, '[1,"a",{"b":null}]'),
        ("{}", "json", None, "{}"),
        ("9007199254740992", "number", 2.0**53, ""),
        ("9007199254740993", "number", 2.0**53, "9007199254740993"),
        ("-9007199254740993", "number", -(2.0**53), "-9007199254740993"),
        ("18446744073709551615", "number", 2.0**64, "18446744073709551615"),
        (
            "123456789012345678901234567890",
            "number",
            123456789012345678901234567890.0,
            "123456789012345678901234567890",
        ),
        ("1e30", "number", 1e30, ""),
        ("1e400", "text", None, "1e400"),
        ("-1e400", "text", None, "-1e400"),
        ("9" * 310, "text", None, "9" * 310),
        ("9" * 309, "text", None, "9" * 309),
        ("9" * 5000, "text", None, "9" * 5000),
        ("[123456789012345678901234567890]", "json", None, "[123456789012345678901234567890]"),
        ('{"a":[1e400,1.5,true,"x"]}', "json", None, '{"a":[1e400,1.5,true,"x"]}'),
        ('"\\ud800"', "text", None, "\ufffd"),
        ('"\\ud83d\\ude00"', "text", None, "😀"),
        ('"a\\\\ud800"', "text", None, "a\\ud800"),
        ('"\\ude00\\ud83d\\ude00"', "text", None, "\ufffd😀"),
    ],
)
def test_values(value: str, kind: str, as_number: float | None, text: str) -> None:
    assert only(f'{{"k":{value}}}') == Point("k", NOW, as_number, text, kind, "delivery")  # type: ignore[arg-type]


def test_one_value_that_needs_its_digits_changes_no_other() -> None:
    found = told('{"a":1.5,"b":123456789012345678901,"c":"x","d":1e20}')
    assert [(p.number, p.text) for p in found.points] == [
        (1.5, ""),
        (123456789012345678901.0, "123456789012345678901"),
        (None, "x"),
        (1e20, ""),
    ]


def test_keys() -> None:
    assert only('{"":1}').key == ""
    assert only('{"a":1,"a":2}').number == 2.0
    assert only('{"\\ud800":1,"\\ufffd":2}').number == 2.0, "equal once mended"
    assert only('{"' + "k" * 256 + '":1}').key == "k" * 256
    found = told('{"a":1,"' + "ü" * 129 + '":2}')
    assert [p.key for p in found.points] == ["a"]
    assert [p.reason for p in found.problems] == ["key"]


@pytest.mark.parametrize("depth", [129, 500, 1100, 100_000])
def test_json_nested_too_deep_is_a_dead_letter(depth: int) -> None:
    for payload in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
        assert [p.reason for p in told(payload).problems] == ["nesting"]


def test_json_nested_just_deep_enough_is_kept() -> None:
    deep = "[" * 127 + "]" * 127
    assert only(f'{{"a":{deep}}}').text == deep
    assert only(f'{{"a":{deep},"a":1}}').number == 1.0
    assert len(told('{"a":"' + "[" * 200 + '"}').points) == 1, "brackets in a text nest nothing"
    assert only(json.dumps({"a": [[]] * 200})).kind == "json", "many are not deep"


@pytest.mark.parametrize(
    ("payload", "kind", "text"),
    [
        (b"hello", "text", "hello"),
        (b'{"a":NaN}', "text", '{"a":NaN}'),
        (b'{"a":Infinity}', "text", '{"a":Infinity}'),
        (b'{"a":1', "text", '{"a":1'),
        (b"{'a':1}", "text", "{'a':1}"),
        (b'\xef\xbb\xbf{"a":1}', "text", '\ufeff{"a":1}'),
        (b" ", "text", " "),
        (b"\x01\xff\x00", "text", "Af8A"),
        (b'{"a":"\xff"}', "text", "eyJhIjoi/yJ9"),
        (b'{"a":"\xed\xa0\x80"}', "text", "eyJhIjoi7aCAIn0="),
        (b'"text"', "text", "text"),
        (b"null", "json", "null"),
        (b"[1,2]", "json", "[1,2]"),
        (b'[{"t":1}]', "json", '[{"t":1}]'),
    ],
)
def test_what_is_no_object_becomes_raw(payload: bytes, kind: str, text: str) -> None:
    assert only(payload) == Point("_raw", NOW, None, text, kind, "delivery")  # type: ignore[arg-type]


def test_a_bare_number_or_boolean_becomes_raw() -> None:
    assert only("7") == number("_raw", 7.0)
    assert only("true").kind == "bool"


def test_empty_is_a_dead_letter() -> None:
    assert [p.reason for p in told(b"").problems] == ["empty"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [("", "empty"), ("hello", "json"), ("7", "form"), ("[1]", "form"), ('{"a":nan}', "json"), ("\udcff", "json")],
)
def test_a_scripts_result_must_be_one_of_the_forms(result: str, reason: str) -> None:
    found = told(result.encode("utf-8", "surrogateescape"), script=True)
    assert [p.reason for p in found.problems] == [reason]
    assert not found.points


def accounted_for(payload: bytes) -> None:
    for script in (False, True):
        found = decode(payload, NOW, YEAR, script=script)
        for point in (*found.points, *found.late):
            (point.key + point.text).encode()
            assert (point.number is None) == (point.kind in ("text", "json"))
        if not (found.points or found.problems or found.late):
            value = json.loads(payload)
            assert isinstance(value, (dict, list))
            assert not value or "values" in payload.decode(), "only an empty object or history says nothing"


@given(st.binary(max_size=200))
@example(b'{"a":"\\ud800')
@example(b"\\ud800")
def test_any_bytes_end_in_points_or_a_dead_letter(payload: bytes) -> None:
    accounted_for(payload)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ts", "values", "a", ""]), inner),
    max_leaves=12,
)


@given(_json)
def test_any_json_ends_in_points_or_a_dead_letter(value: object) -> None:
    accounted_for(json.dumps(value).encode())


@given(st.dictionaries(st.text(max_size=5), _json, max_size=4))
def test_fast_and_exact_reading_agree(value: dict[str, object]) -> None:
    exact: list[Point] = []
    points_of(value, NOW, "delivery", exact, [], exact=True)
    if set(value) not in ({"values"}, {"ts", "values"}):
        found = told(json.dumps(value))
        assert [(p.key, p.number, p.kind) for p in found.points] == [(p.key, p.number, p.kind) for p in exact]

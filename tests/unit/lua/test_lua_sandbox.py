"""What a script can do, what it cannot, and how its errors read."""

import pytest

from tpstream.errors import ConfigurationError
from tpstream.lua.sandbox import Budget, Sandbox, Status, check


def run(
    source: str, msg: bytes = b"", entry: str = "decode", topic: bytes = b"devices/d1/telemetry"
) -> tuple[int, str]:
    status, text = Sandbox(source, Budget()).call(entry.encode(), msg, topic)
    return status, text.decode("latin-1")


def value(expression: str, msg: bytes = b"") -> str:
    """The value of a Lua expression, as a script sees it; `m` is the message."""
    status, text = run(f"function decode(m, topic) return tostring({expression}) end", msg)
    assert status == Status.OK, text
    return text


@pytest.mark.parametrize(
    ("source", "entry", "expected"),
    [
        ("function encodeInp(msg, topic) return msg .. topic end", "decode", "xdevices/d1/telemetry"),
        ("function encodeInp(msg, topic) return msg .. topic end", "encode", "xdevices/d1/telemetry"),
        ("function decode(msg) return '{}' end function encode(msg) return 'down' end", "decode", "{}"),
        ("function decode(msg) return '{}' end function encode(msg) return 'down' end", "encode", "down"),
        ("function decode(msg) return {a = 1, b = {true}} end", "decode", '{"a":1,"b":[true]}'),
        ("encodeInp = function(msg) return {{ts = 5, values = {}}} end", "decode", '[{"ts":5,"values":{}}]'),
    ],
)
def test_entry_points(source: str, entry: str, expected: str) -> None:
    assert run(source, b"x", entry) == (Status.OK, expected)


@pytest.mark.parametrize(
    ("source", "entry", "says"),
    [
        ("x = 1", "decode", "no function encodeInp(msg, topic), nor decode(msg, topic)"),
        ("function decode() end", "decode", "returned nil where JSON text or a table is expected"),
        ("function decode() return 7 end", "decode", "returned number"),
        ("function encode() return {} end", "encode", "returned table where a string is expected"),
        ("function decode()\n\n  return nothing.x\nend", "decode", "script:3: attempt to index a nil value"),
        ("function decode() error('bad frame') end", "decode", "script:1: bad frame"),
        ("function decode() error({}) end", "decode", "an error object of type table"),
        ("function decode() return ('x'):rep(300001) end", "decode", "300001 bytes, more than 300000"),
        ("function decode() return {x = 0/0} end", "decode", "nan is not JSON"),
        ("error('at load')", "decode", "script:1: at load"),
    ],
)
def test_ordinary_errors_say_what_and_where(source: str, entry: str, says: str) -> None:
    status, text = run(source, b"x", entry)
    assert status == Status.ERROR
    assert says in text
    assert "\n" not in text


def test_bytes_come_and_go_unchanged() -> None:
    every = bytes(range(256))
    assert Sandbox("function encode(m) return m end", Budget()).call(b"encode", every, b"") == (0, every)


def test_nothing_is_left_from_one_message_for_the_next() -> None:
    sandbox = Sandbox(
        "n = (n or 0) + 1  local t = {}\n"
        "function decode(m) n = n + 1; t[#t + 1] = m; _G.seen = (seen or 0) + 1\n"
        "return {n = n, t = #t, seen = seen} end",
        Budget(),
    )
    first = sandbox.call(b"decode", b"x", b"")
    assert first == (Status.OK, b'{"n":2,"seen":1,"t":1}')
    assert sandbox.call(b"decode", b"x", b"") == first


@pytest.mark.parametrize(
    "attempt",
    [
        "string.x = 1",
        "rawset(string, 'x', 1)",
        "require('json').x = 1",
        "rawset(require('json').null, 'x', 1)",
        "getmetatable('').__index.x = 1",
        "setmetatable(string, {})",
        "setmetatable(_G, {})",
        "getmetatable(_G).__index.x = 1",
        "getmetatable(require('json').decode('[]')).x = 1",
        "table.insert(math, 1)",
    ],
)
def test_the_libraries_cannot_be_changed(attempt: str) -> None:
    assert run(f"function decode() {attempt} return '{{}}' end")[0] == Status.ERROR


@pytest.mark.parametrize(
    "name",
    [
        *["pcall", "xpcall", "coroutine", "debug", "load", "loadstring", "loadfile", "dofile", "os", "io", "package"],
        *["collectgarbage", "python", "warn", "string.dump", "math.random", "math.randomseed", "_ENV.python"],
    ],
)
def test_what_is_not_there(name: str) -> None:
    assert value(name) == "nil"


def test_there_is_no_other_module() -> None:
    status, text = run("function decode() return require('socket') end")
    assert status == Status.ERROR
    assert "only json" in text


def test_no_finalizers() -> None:
    assert "__gc" in run("function decode() setmetatable({}, {__gc = print}) return '' end")[1]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("unpack({7, 8})", "7"),
        ("string.gfind('ab', 'a')()", "a"),
        ("('x1y2'):gsub('%d', '')", "xy"),
        ("math.pow(2, 3)", "8.0"),
        ("math.ldexp(1, 4)", "16.0"),
        ("table.getn({1, 2, 3})", "3"),
        ("'10' + 1", "11"),
        ("bit.band(0xFF, 0x0F)", "15"),
        ("bit.bor(1, 2, 4)", "7"),
        ("bit.bxor(0xFF, 1)", "254"),
        ("bit.bnot(0)", "-1"),
        ("bit.lshift(1, 31)", "-2147483648"),
        ("bit.rshift(-1, 28)", "15"),
        ("bit.arshift(-16, 2)", "-4"),
        ("bit.arshift(16, 2)", "4"),
        ("bit.rol(0x80000001, 1)", "3"),
        ("bit.ror(1, 1)", "-2147483648"),
        ("bit.tobit(0xFFFFFFFF)", "-1"),
        ("bit.tohex(255, 4)", "00ff"),
        ("bit.tohex(255, -2)", "FF"),
        ("bit.band(-1, 0xFFFFFFFF)", "-1"),
        ("m:byte(1) * 256 + m:byte(2)", "258"),
        ("string.unpack('>i2', m)", "258"),
        ("table.concat({1, 2}, '-')", "1-2"),
        ("select('#', table.unpack({1, 2, 3}))", "3"),
        ("utf8.char(228)", "Ã¤"),
        ("string.format('%.2f', 1 / 3)", "0.33"),
        ("#string.rep('ab', 3, '-')", "8"),
        ("tonumber('ff', 16)", "255"),
    ],
)
def test_what_is_there(expression: str, expected: str) -> None:
    assert value(expression, b"\x01\x02") == expected


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("while true do end", Status.CPU),
        ("local t = {} while true do t[#t + 1] = {} end", Status.MEMORY),
        ("local s = 'x' while true do s = s .. s end", Status.MEMORY),
        ("string.rep('x', 2^30)", Status.ERROR),
        ("string.rep('', 2^40)", Status.ERROR),
        ("table.move({}, 1, 2^40, 2)", Status.ERROR),
        ("table.concat({}, '', 1, 2^40)", Status.ERROR),
        ("table.insert(setmetatable({}, {__len = function() return 2^50 end}), 1, 1)", Status.ERROR),
        ("('x'):find(('a?'):rep(1000))", Status.ERROR),
    ],
)
def test_budgets_and_guards(source: str, status: Status) -> None:
    assert run(f"function decode() {source} return '' end")[0] == status


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("function decode(m)\n  return {\nend", "line 3"),
        ("x = = 1", "line 1"),
        ("\n\n\n'unfinished", "line 4"),
        ("goto nowhere", "line 1"),
        ("x" * 50_001, "50001 characters, more than 50000"),
        ("\x1bLua", "line 1"),
    ],
)
def test_what_does_not_compile_is_refused_with_its_line(source: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        check(source)


def test_what_compiles_is_not_run() -> None:
    check("while true do end")

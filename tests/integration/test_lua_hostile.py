"""A script can hurt only itself: each of these is stopped, and the next call works.

The processes are real. Where the sandbox itself refuses, stops or kills a script is not the
promise; that it ends, fails alone and leaves nothing behind is.
"""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from tpstream.lua.pool import Call, Failed, Result, Scripts
from tpstream.settings import Settings

HOSTILE = {
    "loop": "while true do end",
    "goto loop": "::again:: goto again",
    "repeat loop": "repeat until false",
    "huge for": "for i = 1, 1e18 do end",
    "recursion": "local function f() return 1 + f() end f()",
    "tail recursion": "local function f() return f() end f()",
    "mutual recursion by metatable": "local t = setmetatable({}, {}) getmetatable(t).__index = function(a, k) "
    "return t[k .. 'x'] end return t.x",
    "memory by tables": "local t = {} while true do t = {t} end",
    "memory by strings": "local s = 'xx' while true do s = s .. s end",
    "memory by rep": "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6 - i) end",
    "memory by gsub": "local s = 'x' while true do s = s:gsub('.', '%0%0') end",
    "memory by concat": "local t = {} for i = 1, 100000 do t[i] = ('x'):rep(1000) end return table.concat(t)",
    "memory by closures": "local f while true do local g = f f = function() return g end end",
    "pattern of exponential time": "return (('a'):rep(400):find('.-.-.-.-b')) and '' or '{}'",
    "pattern of 25 characters": "return tostring(('a'):rep(40):match(('a?'):rep(12) .. ('.-'):rep(12) .. 'b'))",
    "pattern on a long text": "return tostring(('a'):rep(1000000):find('.-.-.-b'))",
    "gsub with nested quantifiers": "return (('a'):rep(300):gsub('(.-)(.-)(.-)(.-)b', ''))",
    "gmatch": "for x in (('a'):rep(3000)):gmatch('.-.-.-b') do end",
    "rep of nothing": "return (''):rep(1e18)",
    "move over a huge range": "table.move({}, 1, 1e15, 2)",
    "insert by a lying length": "table.insert(setmetatable({}, {__len = function() return 1e15 end}), 1, 1)",
    "concat over a huge range": "table.concat(setmetatable({}, {__index = function() return '' end}), '', 1, 1e15)",
    "sort with a lying order": "local t = {} for i = 1, 100000 do t[i] = i end "
    "table.sort(t, function(a, b) return true end)",
    "sort of much": "local t = {} for i = 1, 300000 do t[i] = (i * 7919) % 300007 end table.sort(t) table.sort(t) "
    "while true do table.sort(t) end",
    "unpack of much": "return select('#', table.unpack({}, 1, 1e7))",
    "tostring that never ends": "return tostring(setmetatable({}, {__tostring = function() while true do end end}))",
    "close that never ends": "local x <close> = setmetatable({}, {__close = function() while true do end end}) "
    "error('x')",
    "close that closes": "local function f() local a <close> = setmetatable({}, {__close = f}) "
    "local b <close> = setmetatable({}, {__close = f}) error('x') end f()",
    "equality that never ends": "local m = {__eq = function() while true do end end} "
    "return tostring(setmetatable({}, m) == setmetatable({}, m))",
    "iterator that never ends": "for k in function() return 1 end do end",
    "json of a circle": "local t = {} t[1] = t return require('json').encode(t)",
    "json of a deep text": "return require('json').decode(('['):rep(500000))",
    "json that doubles": "local t = {} for i = 1, 60 do t = {t, t} end return t",
    "comparison of long texts": "local a, b = ('\\0'):rep(999999) .. 'a', ('\\0'):rep(999999) .. 'b' "
    "for i = 1, 1e9 do if a > b then break end end",
    "format": "local s = '' for i = 1, 1e9 do s = string.format('%s%99.99f', s, 1e308) end",
    "call depth in C": "local function f(s) return (s:gsub('.', f)) end f('x')",
}


@pytest.fixture(scope="module")
def loop_settings() -> Settings:
    return Settings()


@pytest.fixture
async def scripts(loop_settings: Settings) -> AsyncIterator[Scripts]:
    pool = Scripts(loop_settings)
    await pool.start()
    yield pool
    await pool.stop()


def call(body: str, msg: bytes = b"x", name: str = "hostile@1") -> Call:
    return Call(name, f"function decode(m, topic) if m ~= 'x' then return {{}} end {body} end", "decode", msg, "t")


GOOD = Call("good@1", "function decode(m) return {n = #m} end", "decode", b"abc", "t")


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_script_is_stopped_and_the_next_call_works(scripts: Scripts, name: str) -> None:
    await scripts.run([GOOD])
    began = time.monotonic()
    before, outcome, after = await scripts.run([GOOD, call(HOSTILE[name]), GOOD])
    assert time.monotonic() - began < 5.0, "0.1 s, on a machine that gives it the time"
    assert isinstance(outcome, Failed), outcome
    assert outcome.reason == "script"
    assert before == after == Result(b'{"n":3}')


async def test_a_pool_that_nobody_started_starts_with_its_first_call(loop_settings: Settings) -> None:
    scripts = Scripts(loop_settings)
    assert await scripts.run([GOOD]) == [Result(b'{"n":3}')]
    await scripts.stop()


async def test_only_the_offending_call_of_a_batch_fails(scripts: Scripts) -> None:
    hang = HOSTILE["pattern on a long text"]
    calls = [call(hang, b"y") for _ in range(1500)]
    calls[700] = call(hang)
    calls[701] = call(hang)
    outcomes = await scripts.run(calls)
    assert [n for n, outcome in enumerate(outcomes) if outcome != Result(b"{}")] == [700, 701]


async def test_the_third_offence_puts_the_script_in_quarantine(loop_settings: Settings) -> None:
    now = 1000.0
    scripts = Scripts(loop_settings, clock=lambda: now)
    await scripts.start()
    try:
        looping = HOSTILE["loop"]
        outcomes = await scripts.run([call(looping) for _ in range(5)] + [GOOD, call(looping, name="hostile@2")])
        reasons = [outcome.reason if isinstance(outcome, Failed) else "" for outcome in outcomes]
        assert reasons == ["script"] * 3 + ["quarantine"] * 2 + ["", "script"]
        now += 59
        (still,) = await scripts.run([call(looping, b"harmless")])
        assert still == Failed("quarantine", "script hostile@1 is in quarantine for 1 s more")
        now += 1
        (again,) = await scripts.run([call(looping, b"harmless")])
        assert again == Result(b"{}")
    finally:
        await scripts.stop()


async def test_ordinary_errors_are_no_offence(scripts: Scripts) -> None:
    outcomes = await scripts.run([call("error('bad frame')") for _ in range(20)])
    assert outcomes == [Failed("script", "hostile@1: script:1: bad frame")] * 20


async def test_a_slow_but_honest_script_is_left_alone(scripts: Scripts) -> None:
    slow = call("local n = 0 for i = 1, 100000 do n = n + i end return {n = n}")
    assert await scripts.run([slow] * 40) == [Result(b'{"n":5000050000}')] * 40


async def test_a_process_that_is_killed_from_outside_costs_no_message(scripts: Scripts) -> None:
    assert await scripts.run([GOOD]) == [Result(b'{"n":3}')]
    assert scripts._child is not None
    scripts._child._process.kill()
    assert await scripts.run([GOOD] * 2500) == [Result(b'{"n":3}')] * 2500


async def test_a_caller_that_gives_up_leaves_no_answers_to_the_next(scripts: Scripts) -> None:
    slow = call("local n = 0 for i = 1, 100000 do n = n + i end return {n = n}")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await scripts.run([slow] * 900)
    assert await scripts.run([GOOD]) == [Result(b'{"n":3}')]


async def test_callers_share_the_process_in_turn(scripts: Scripts) -> None:
    many = await asyncio.gather(*(scripts.run([GOOD] * 10) for _ in range(20)))
    assert many == [[Result(b'{"n":3}')] * 10] * 20


async def test_large_messages_cross(scripts: Scripts) -> None:
    calls = [Call("size@1", "function decode(m) return {n = #m} end", "decode", b"x" * 1_000_000, "t")] * 12
    assert await scripts.run(calls) == [Result(b'{"n":1000000}')] * 12


async def test_the_process_ends_when_its_pipe_does(loop_settings: Settings) -> None:
    scripts = Scripts(loop_settings)
    await scripts.start()
    await scripts.run([GOOD])
    assert scripts._child is not None
    process = scripts._child._process
    assert process.stdin is not None
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 2) == 0
    await scripts.stop()

"""POST …/commands: a right body becomes a command on Kafka; a wrong one names its field."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parts.console_server import Sent

from tpstream.errors import Unavailable
from tpstream.messages import CommandRequest
from tpstream.web.commands import Commands, parse
from tpstream.web.reply import BadRequest, Call


def body(**content: Any) -> bytes:
    return json.dumps(content).encode()


def test_a_whole_command() -> None:
    data = body(method="fan", params={"on": True}, timeout=5, attempts=1)
    assert parse("g1", data, 1000, "id-1") == CommandRequest(
        id="id-1",
        device="g1",
        method="fan",
        created_at=1000,
        params='{"on":true}',
        source="api",
        timeout=5.0,
        attempts=1,
    )


def test_only_the_method_is_needed() -> None:
    request = parse("g1", body(method="reboot"), 1000, "i")
    assert (request.params, request.timeout, request.attempts) == ("", None, None)
    assert parse("g1", body(method="reboot", params={}), 1000, "i").params == "{}"


@pytest.mark.parametrize(
    ("data", "parameter"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b'{"method":"a","params":{"x":NaN}}', "body"),
        (b"\xff", "body"),
        (body(), "method"),
        (body(method=""), "method"),
        (body(method=7), "method"),
        (body(method="m" * 257), "method"),
        (body(method="m\0"), "method"),
        (body(method="m", params=[1]), "params"),
        (body(method="m", params="on"), "params"),
        (body(method="m", timeout=0), "timeout"),
        (body(method="m", timeout=-1), "timeout"),
        (body(method="m", timeout=True), "timeout"),
        (body(method="m", timeout="5"), "timeout"),
        (body(method="m", timeout=86_401), "timeout"),
        (body(method="m", attempts=0), "attempts"),
        (body(method="m", attempts=1.5), "attempts"),
        (body(method="m", attempts=True), "attempts"),
        (body(method="m", parms={}), "parms"),
        (b'{"method":"m","params":' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}", "params"),
        (b"[" * 60_000, "body"),
    ],
)
def test_a_wrong_body_names_its_field(data: bytes, parameter: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse("g1", data, 0, "i")
    assert caught.value.parameter == parameter


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_command_or_a_complaint(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert parse("g1", data, 0, "i").method


async def test_it_is_accepted_once_kafka_has_it() -> None:
    sent, acknowledged = Sent(), asyncio.Event()
    sent.wait = acknowledged.wait
    commands = Commands(sent, clock=lambda: 1000, new_id=lambda: "id-1")
    task = asyncio.create_task(commands.post(Call({"device": "g1"}, {}, body(method="fan"))))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()

    acknowledged.set()
    reply = await task

    assert (reply.status, json.loads(reply.body)["id"]) == (202, "id-1")
    assert ("Location", "/api/v1/commands/id-1") in reply.headers
    [(topic, partition, key, request)] = sent.records
    assert (topic, partition, key) == ("tp.downlink.command.v1", None, b"g1")
    assert (request.id, request.device, request.created_at) == ("id-1", "g1", 1000)


async def test_kafka_away_is_unavailable_and_says_that_the_command_may_still_go() -> None:
    sent = Sent()
    sent.wait = asyncio.Event().wait
    commands = Commands(sent, patience=0.01)
    with pytest.raises(Unavailable, match="may still be sent: look at /api/v1/commands/"):
        await commands.post(Call({"device": "g1"}, {}, body(method="fan")))


async def test_while_kafka_is_away_nothing_is_taken_that_would_be_sent_later() -> None:
    sent = Sent()
    sent.available = False
    with pytest.raises(Unavailable, match="was not taken"):
        await Commands(sent).post(Call({"device": "g1"}, {}, body(method="fan")))
    assert sent.records == []


async def test_held_it_takes_nothing_until_it_is_released() -> None:
    sent = Sent()
    commands = Commands(sent)
    assert (await commands.hold(Call(near=True))).status == 200
    reply = await commands.post(Call({"device": "g1"}, {}, body(method="fan")))
    assert (reply.status, json.loads(reply.body)["remedy"]) == (503, "try again")
    assert sent.records == []
    assert (await commands.release(Call(near=True))).status == 200
    assert (await commands.post(Call({"device": "g1"}, {}, body(method="fan")))).status == 202


async def test_a_hold_is_answered_when_kafka_has_what_was_taken_before() -> None:
    sent, acknowledged = Sent(), asyncio.Event()
    sent.wait = acknowledged.wait
    commands = Commands(sent)
    post = asyncio.create_task(commands.post(Call({"device": "g1"}, {}, body(method="fan"))))
    await asyncio.sleep(0)
    hold = asyncio.create_task(commands.hold(Call(near=True)))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not hold.done()
    acknowledged.set()
    assert (await hold).status == 200
    assert (await post).status == 202


async def test_a_hold_that_kafka_does_not_answer_is_unavailable_and_holds() -> None:
    sent = Sent()
    sent.wait = asyncio.Event().wait
    commands = Commands(sent, patience=0.01)
    with pytest.raises(Unavailable):
        await commands.hold(Call(near=True))
    assert (await commands.post(Call({"device": "g1"}, {}, body(method="fan")))).status == 503


async def test_nobody_from_elsewhere_holds_or_releases() -> None:
    commands = Commands(Sent())
    assert (await commands.hold(Call())).status == 403
    assert (await commands.post(Call({"device": "g1"}, {}, body(method="fan")))).status == 202
    await commands.hold(Call(near=True))
    assert (await commands.release(Call())).status == 403
    assert (await commands.post(Call({"device": "g1"}, {}, body(method="fan")))).status == 503

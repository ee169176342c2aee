"""The tests' proxy: what it passes on, holds, cuts and answers itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from parts.proxy import Proxy, clickhouse_241, complete, http_500, http_insert, kafka_produce

PRODUCE = b"\x00\x00\x00\x0a\x00\x00\x00\x09ab"
FETCH = b"\x00\x00\x00\x0a\x00\x01\x00\x09ab"


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that echoes; `seen` is all that it got."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            seen.extend(data)
            writer.write(data)
        writer.close()

    seen.clear()
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    with Proxy(server.sockets[0].getsockname()[1]) as made:
        yield made
    server.close()


seen = bytearray()


async def ask(proxy: Proxy, data: bytes = b"hello", patience: float = 2.0) -> bytes | None:
    """The answer; b"": the connection was closed or reset; None: silence."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with closing(writer):
            writer.write(data)
            return await asyncio.wait_for(reader.read(1_000), patience)
    except TimeoutError:
        return None
    except OSError:
        return b""


async def test_it_passes_on_and_delays(proxy: Proxy) -> None:
    assert await ask(proxy) == b"hello"
    proxy.delay = 0.1
    began = time.monotonic()
    assert await ask(proxy) == b"hello"
    assert time.monotonic() - began > 0.19


async def test_it_refuses_and_swallows_and_heals(proxy: Proxy) -> None:
    proxy.refuse = True
    assert await ask(proxy) == b""
    proxy.heal()
    proxy.swallow = True
    assert await ask(proxy, patience=0.2) is None
    proxy.heal()
    assert await ask(proxy) == b"hello"


async def test_it_cuts_now_and_after_so_many_bytes(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"x")
    assert await reader.read(10) == b"x"
    await asyncio.to_thread(proxy.cut)
    with pytest.raises(ConnectionResetError):
        await reader.read(10)
    writer.close()
    proxy.cut_after = 4
    assert await ask(proxy, b"hell") in (b"", b"hell")


async def test_the_request_arrives_and_its_answer_does_not(proxy: Proxy) -> None:
    proxy.cut_answers(kafka_produce, 2)
    assert await ask(proxy, FETCH) == FETCH
    assert await ask(proxy, PRODUCE) == b""
    assert await ask(proxy, PRODUCE) == b""
    assert bytes(seen) == FETCH + PRODUCE + PRODUCE
    assert await asyncio.to_thread(proxy.wait_cut, 1)
    assert await ask(proxy, PRODUCE) == PRODUCE


async def test_it_answers_in_the_servers_place(proxy: Proxy) -> None:
    proxy.answer = http_500
    request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    assert (await ask(proxy, request) or b"").startswith(b"HTTP/1.1 500")
    assert await ask(proxy, request[:-1], patience=0.2) is None
    assert not seen


@pytest.mark.parametrize(
    ("request_", "whole"),
    [
        (b"GET / HTTP/1.1\r\n", False),
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\na", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", False),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", True),
    ],
)
def test_an_http_request_is_complete_with_its_body(request_: bytes, whole: bool) -> None:
    assert complete(request_) is whole
    assert (clickhouse_241(request_) is not None) is whole


def test_an_insert_is_known_by_its_statement() -> None:
    assert http_insert(b"POST /?query=INSERT+INTO+t HTTP/1.1\r\n\r\n")
    assert http_insert(b"POST / HTTP/1.1\r\n\r\nINSERT INTO t FORMAT Native\n")
    assert not http_insert(b"POST / HTTP/1.1\r\n\r\nSELECT 1")

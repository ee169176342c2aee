"""A small TCP proxy of the tests' own: delays, cuts, refuses and swallows what passes, or answers for the server.

It runs in a thread with an event loop of its own. What it does is set by attributes, at any moment:

with Proxy(target_port) as proxy:
    proxy.delay = 0.1        # seconds that every chunk takes, each way
    proxy.swallow = True     # connections stay open, nothing passes
    proxy.refuse = True      # connections are reset, new ones at once
    proxy.cut()              # every connection there is, now
    proxy.cut_after = 1_000  # a connection is cut when so many bytes have gone to the server
    proxy.cut_answers(kafka_produce, 3)   # 3 times: the request reaches the server, its answer nobody
    proxy.answer = http_500  # requests are answered here and do not reach the server
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
Bytes = bytes | bytearray

CHUNK = 65_536
KEPT = 65_536
"""Bytes of a request that are kept to tell its kind."""

Wanted = Callable[[Bytes], bool]
"""Whether the bytes that a client has sent since the last answer are a request of the wanted kind."""


def kafka_produce(request: Bytes) -> bool:
    """A Kafka request begins with its length (4 bytes) and its kind (2 bytes); 0 is Produce."""
    return request[4:6] == b"\x00\x00"


def http_insert(request: Bytes) -> bool:
    """A POST of clickhouse-connect that inserts: the statement is in the URL or begins the body."""
    return request.startswith(b"POST") and b"INSERT" in request[:KEPT].upper()


def complete(request: Bytes) -> bool:
    """Whether an HTTP request is there with its whole body."""
    head = request.find(b"\r\n\r\n")
    if head < 0:
        return False
    for line in bytes(request[:head]).lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(request) - head - 4 >= int(value)
        if name == b"transfer-encoding" and b"chunked" in value:
            return request.endswith(b"\r\n0\r\n\r\n")
    return True


def http_500(request: Bytes) -> bytes | None:
    """An answer as a proxy before a dead server gives it; None while the request is not complete."""
    if not complete(request):
        return None
    return b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\nConnection: close\r\n\r\nerror"


def clickhouse_241(request: Bytes) -> bytes | None:
    """ClickHouse's own answer where it has no memory left."""
    if not complete(request):
        return None
    text = b"Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)\n"
    head = b"HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: 241\r\nContent-Length: %d\r\n"
    return head % len(text) + b"Connection: close\r\n\r\n" + text


class Proxy:
    """Listens on `port` of the loopback and passes on to `target`, another port there."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.target = target
        self.delay = 0.0
        self.swallow = False
        self.cut_after: int | None = None
        self.answer: Callable[[Bytes], bytes | None] | None = None
        self.connections = 0
        """Taken so far."""
        self.answers_cut = 0
        self._refuse = False
        self._cut: tuple[Wanted, int] | None = None
        self._links: set[_Link] = set()
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._call(self._listen())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cut everything and stop."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @property
    def refuse(self) -> bool:
        """Whether connections are reset, those that are there and new ones."""
        return self._refuse

    @refuse.setter
    def refuse(self, value: bool) -> None:
        self._refuse = value
        if value:
            self.cut()

    def cut(self, share: float = 1.0) -> None:
        """Reset the connections there are, or a random share of them."""
        self._call(self._cut_now(share))

    def cut_answers(self, wanted: Wanted, times: int) -> None:
        """So many times: a request of this kind goes to the server, and when it answers, the connection is reset."""
        self._cut = (wanted, times)

    def wait_cut(self, patience: float = 10.0) -> bool:
        """Until all that `cut_answers` ordered has happened; False: it has not."""
        end = time.monotonic() + patience
        while self._cut is not None and time.monotonic() < end:
            time.sleep(0.02)
        self._cut, done = None, self._cut is None
        return done

    def heal(self) -> None:
        """Pass everything on again."""
        self.delay, self.swallow, self._refuse = 0.0, False, False
        self.cut_after, self.answer, self._cut = None, None, None

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._socket)

    async def _close(self) -> None:
        self._server.close()
        await self._cut_now(1.0)

    async def _cut_now(self, share: float) -> None:
        for link in list(self._links):
            if share >= 1 or random.random() < share:
                link.reset()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self, reader, writer)
        self._links.add(link)
        try:
            if not self._refuse:
                await link.run()
        finally:
            link.reset()
            self._links.discard(link)

    def take_cut(self, request: Bytes) -> bool:
        """Whether the answer to this request is to be cut; counts it."""
        if self._cut is None or not self._cut[0](request):
            return False
        wanted, times = self._cut
        self._cut = (wanted, times - 1) if times > 1 else None
        self.answers_cut += 1
        return True


class _Link:
    """One connection and its other side."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._upstream: asyncio.StreamWriter | None = None
        self._request = bytearray()
        self._passed = 0

    def reset(self) -> None:
        """Close both sides with a reset."""
        for writer in (self._writer, self._upstream):
            if writer is not None:
                with suppress(OSError):
                    # Closing with nothing to linger for sends a reset instead of an orderly end.
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()

    async def run(self) -> None:
        """Pass on both ways until one side has ended."""
        if self._proxy.answer is None:
            try:
                there, self._upstream = await asyncio.open_connection("127.0.0.1", self._proxy.target)
            except OSError:
                return
            ways = [asyncio.create_task(self._up()), asyncio.create_task(self._down(there))]
        else:
            ways = [asyncio.create_task(self._up())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    async def _up(self) -> None:
        proxy = self._proxy
        while data := await self._reader.read(CHUNK):
            if proxy.answer is not None or len(self._request) < KEPT:
                self._request += data
            if proxy.answer is not None:
                if (answer := proxy.answer(self._request)) is not None:
                    self._writer.write(answer)
                    await self._writer.drain()
                    return
                continue
            await self._hold()
            if self._upstream is None:
                return
            self._upstream.write(data)
            await self._upstream.drain()
            self._passed += len(data)
            if proxy.cut_after is not None and self._passed >= proxy.cut_after:
                return

    async def _down(self, there: asyncio.StreamReader) -> None:
        while data := await there.read(CHUNK):
            if self._proxy.take_cut(self._request):
                return
            self._request.clear()
            await self._hold()
            self._writer.write(data)
            await self._writer.drain()

    async def _hold(self) -> None:
        if self._proxy.delay:
            await asyncio.sleep(self._proxy.delay)
        while self._proxy.swallow:
            await asyncio.sleep(0.02)

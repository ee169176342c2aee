"""A real part for tests: a TCP proxy that cuts connections where a test wants them cut."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Literal


class Cut:
    """Passes bytes on to a port of this machine until it is armed; then it cuts, once or as long as it is armed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._left: int | None = None
        self._answers = True
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Cut:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    def arm(self, after: int | Literal["answer"]) -> None:
        """Cut when so many more bytes went to the target, or when the next bytes come back from it."""
        if after == "answer":
            self._answers = False
        else:
            self._left = after

    def mend(self) -> None:
        """Pass all on again."""
        self._left, self._answers = None, True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, out = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, out}
        self._open |= pair
        await asyncio.gather(self._there(reader, out, pair), self._back(back, writer, pair), return_exceptions=True)
        self._abort(pair)

    def _abort(self, pair: set[asyncio.StreamWriter]) -> None:
        for writer in pair:
            writer.transport.abort()
        self._open -= pair

    async def _there(
        self, reader: asyncio.StreamReader, out: asyncio.StreamWriter, pair: set[asyncio.StreamWriter]
    ) -> None:
        while data := await reader.read(65_536):
            if self._left is not None and len(data) >= self._left:
                out.write(data[: self._left])
                await out.drain()
                self._left = 0
                self._abort(pair)
                return
            if self._left is not None:
                self._left -= len(data)
            out.write(data)
            await out.drain()
        self._abort(pair)

    async def _back(
        self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: set[asyncio.StreamWriter]
    ) -> None:
        while data := await back.read(65_536):
            if not self._answers:
                break
            writer.write(data)
            await writer.drain()
        self._abort(pair)

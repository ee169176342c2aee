"""A connection that was reset is a lost connection, on uvloop too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from tpstream.bus import connection


async def reset() -> str:
    """Send on a connection whose broker has reset it; what is raised."""
    hold = asyncio.Event()

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.transport.abort()

    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = AIOKafkaConnection("127.0.0.1", port, request_timeout_ms=1_000)
    versions: Any = {3: (0, 0)}
    client._reader, client._writer = await asyncio.open_connection("127.0.0.1", port)
    client._versions, client._read_task = versions, asyncio.create_task(hold.wait())
    client._writer.transport.abort()
    await asyncio.sleep(0.05)
    try:
        client.send(MetadataRequest([]))
    except Exception as error:
        return f"{type(error).__name__} {client._writer is None}"
    finally:
        hold.set()
        server.close()
    return "nothing"


def run_on_uvloop() -> str:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(reset())


def test_a_reset_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", connection._send)
    assert run_on_uvloop() == "RuntimeError False", "aiokafka takes it for a lost connection itself: drop the repair"
    connection.mend()
    assert run_on_uvloop() == f"{KafkaConnectionError.__name__} True"

"""The small server: /health, /metrics, the next free port, and the announcement in the data directory."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import aiohttp
import pytest

from tpstream.errors import ConfigurationError
from tpstream.observability import metrics
from tpstream.observability.announce import Announcement, announce, announced
from tpstream.observability.health import Health, Part
from tpstream.observability.server import HealthServer

HOST = "127.0.0.1"


async def fetch(port: int, path: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{HOST}:{port}{path}") as reply:
        return reply.status, reply.headers["Content-Type"], await reply.text()


async def test_health_turns_red_with_a_part_and_metrics_are_prometheus_text() -> None:
    health, well = Health(), [True]
    health.register("store", lambda: Part(well[0], "reachable" if well[0] else "away"))
    server = HealthServer(health, "store", HOST, 0)
    port = await server.start()
    try:
        status, kind, body = await fetch(port, "/health")
        assert (status, kind.split(";")[0], json.loads(body)["store"]["detail"]) == (
            200,
            "application/json",
            "reachable",
        )
        well[0] = False
        status, _, body = await fetch(port, "/health")
        assert (status, json.loads(body)["ok"]) == (503, False)

        metrics.MESSAGES.labels(agent="test").inc(5)
        status, kind, body = await fetch(port, "/metrics")
        assert (status, kind) == (200, metrics.CONTENT_TYPE)
        assert 'tpstream_messages_total{agent="test"} 5.0' in body
        assert "process_cpu_seconds_total" in body
        assert (await fetch(port, "/elsewhere"))[0] == 404
    finally:
        await server.stop()


async def test_the_next_free_port_is_taken_and_announced(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        taken = other.getsockname()[1]
        server = HealthServer(Health(), "store", HOST, taken, next_free=True, data_dir=tmp_path)
        port = await server.start()
        try:
            assert port > taken
            assert announced(tmp_path) == [Announcement("store", os.getpid(), port)]
        finally:
            await server.stop()
    assert announced(tmp_path) == []


async def test_a_taken_port_is_one_line_with_port_and_setting() -> None:
    with socket.create_server((HOST, 0)) as other:
        taken = other.getsockname()[1]
        server = HealthServer(Health(), "bridge", HOST, taken, setting="TPSTREAM_BRIDGE_WEB_PORT")
        with pytest.raises(ConfigurationError, match=f"port {taken} is taken .* TPSTREAM_BRIDGE_WEB_PORT"):
            await server.start()


def test_announcements_of_the_dead_and_torn_files_are_passed_over(tmp_path: Path) -> None:
    announce(tmp_path, "bridge", 1)
    (tmp_path / "run" / "dead.json").write_text(json.dumps({"name": "dead", "pid": 2**22 + 1, "port": 2}))
    (tmp_path / "run" / "torn.json").write_text('{"name":')

    assert [one.name for one in announced(tmp_path)] == ["bridge"]

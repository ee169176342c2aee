"""/health and /metrics of a process that has no web of its own (the worker's role store, the bridge)."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

from aiohttp import web

from tpstream.errors import ConfigurationError
from tpstream.observability import metrics
from tpstream.observability.announce import announce, withdraw
from tpstream.observability.health import Health

log = logging.getLogger(__name__)

TRIES = 100
"""Ports tried, one after another, where the next free one is wanted."""


class HealthServer:
    """Serves `/health` and `/metrics`, and announces itself in `data_dir/run/<name>.json`.

    server = HealthServer(health, "store", host, settings.worker_web_port, next_free=True, data_dir=settings.data_dir)
    port = await server.start()
    """

    def __init__(
        self,
        health: Health,
        name: str,
        host: str,
        port: int,
        *,
        next_free: bool = False,
        data_dir: Path | None = None,
        setting: str = "TPSTREAM_WORKER_WEB_PORT",
    ) -> None:
        self.port = port
        self._health = health
        self._name = name
        self._host = host
        self._next_free = next_free
        self._data_dir = data_dir
        self._setting = setting
        self._runner: web.AppRunner | None = None
        self._announced: Path | None = None

    async def start(self) -> int:
        """Listen, and return the port. ConfigurationError: the port (or all that were tried) is taken."""
        app = web.Application()
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            self.port = await self._listen(self._runner)
        except BaseException:
            await self._runner.cleanup()
            raise
        if self._data_dir is not None:
            self._announced = announce(self._data_dir, self._name, self.port)
        log.info("%s: /health and /metrics on http://%s:%d", self._name, self._host, self.port)
        return self.port

    async def stop(self) -> None:
        """Withdraw the announcement and stop listening."""
        if self._announced is not None:
            withdraw(self._announced)
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, runner: web.AppRunner) -> int:
        last = self.port + (TRIES if self._next_free and self.port else 1)
        for port in range(self.port, last):
            site = web.TCPSite(runner, self._host, port)
            try:
                await site.start()
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                raise ConfigurationError(
                    f"cannot listen on {self._host}:{port} ({error.strerror}); check TPSTREAM_HOST and {self._setting}"
                ) from None
            return int(runner.addresses[-1][1])
        ports = f"port {self.port} is" if last == self.port + 1 else f"ports {self.port} to {last - 1} are"
        raise ConfigurationError(f"{ports} taken on {self._host}; set {self._setting} to a free one")

    async def _get_health(self, request: web.Request) -> web.Response:
        status, report = self._health.answer()
        return web.json_response(report, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

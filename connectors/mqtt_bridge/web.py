"""The bridge's web port: /health, /metrics, and /hold and /release for `tpstream up`."""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from connectors.mqtt_bridge.metrics import CONTENT_TYPE, Metrics
from tpstream.errors import ConfigurationError
from tpstream.observability.health import Health

Do = Callable[[], Awaitable[None]]


class Web:
    """Serves the bridge's web port."""

    def __init__(self, host: str, port: int, health: Health, metrics: Metrics, hold: Do, release: Do) -> None:
        self._host = host
        self._port = port
        self._health = health
        self._metrics = metrics
        app = web.Application(middlewares=[_own_callers_only])
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_post("/hold", _doing(hold, held=True))
        app.router.add_post("/release", _doing(release, held=False))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    async def start(self) -> None:
        """Listen. ConfigurationError: the port is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
            raise ConfigurationError(
                f"port {self._port} on {self._host} {why}; set TPSTREAM_BRIDGE_WEB_PORT to a free one"
            ) from None

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _get_health(self, request: web.Request) -> web.Response:
        status, report = self._health.answer()
        return web.json_response(report, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))

    async def _get_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _doing(do: Do, *, held: bool) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        await do()
        return web.json_response({"held": held})

    return handle


@web.middleware
async def _own_callers_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A web page that somebody looks at on this machine must not be able to stop the bridge."""
    if request.method != "GET" and "Origin" in request.headers:
        raise web.HTTPForbidden(text="not for web pages")
    return await handler(request)

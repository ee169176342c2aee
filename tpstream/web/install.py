"""The shell: puts the routes on a Faust app's web server, behind the guard, and takes Faust's own pages off.

The driver is aiohttp. What Faust would serve by itself (`/router`, `/table`, `/graph`, an
index) is dropped; what it would answer in plain text (404, 405) becomes JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import faust
from aiohttp import web
from faust.web.base import BlueprintManager

from tpstream.errors import TpstreamError, Unavailable
from tpstream.observability import metrics
from tpstream.observability.health import Health
from tpstream.web import assets
from tpstream.web.commands import Commands, Sends
from tpstream.web.guard import own_names, refusal
from tpstream.web.reads import Store
from tpstream.web.reply import BadRequest, Call, Reply, Route, error_reply
from tpstream.web.routes import MAX_BODY, table

if TYPE_CHECKING:
    from tpstream.app import Services

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def install(app: faust.App, services: Services, health: Health, producer: Sends, *, store: Store | None = None) -> None:
    """Serve page, API, /health and /metrics on the app's web server. Call before the app starts.

    The app's settings `web_bind` and `web_port` say where. `producer` is started by the
    caller; `store` is by default a `tpstream.storage.reader.Reader` of its own.
    """
    if store is None:
        from tpstream.storage.reader import Reader

        store = Reader(services.settings)
    catalog = services.catalog

    def registered() -> Iterator[tuple[str, str]]:
        return ((one.device, catalog.profile_of(one.device).name) for one in catalog.devices())

    app.web.blueprints = BlueprintManager()
    app.web.web_app.middlewares.append(_door(services.settings.host, services.settings.web_hosts))
    for (method, path), route in table(store, health, Commands(producer), registered).items():
        app.page(path, name=f"{method} {path}")(_view(method, route))


def _view(method: str, route: Route) -> type[Any]:
    """A Faust view that answers one method of one path."""

    async def answer(self: Any, request: web.Request, **path: str) -> web.Response:
        return _response(await _call(request, path, route))

    return type("Page", (faust.web.View,), {method.lower(): answer, "__doc__": route.__doc__})


async def _call(request: web.Request, path: dict[str, str], route: Route) -> Reply:
    try:
        body = await _body(request)
        return await route(Call(path, request.query, body, _near(request)))
    except BadRequest as error:
        return error_reply(400, str(error), parameter=error.parameter)
    except web.HTTPRequestEntityTooLarge:
        return error_reply(413, f"the body is larger than {MAX_BODY} bytes")
    except Unavailable as error:
        remedy = "nothing is lost; try again in a moment, and look at /health"
        return error_reply(503, str(error) or "a part is away", remedy=remedy)
    except TpstreamError as error:
        return error_reply(500, str(error))


async def _body(request: web.Request) -> bytes:
    """The body; HTTPRequestEntityTooLarge beyond the bound, however it is sent."""
    if (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)
    body = bytearray()
    async for chunk in request.content.iter_chunked(16_384):
        body += chunk
        if len(body) > MAX_BODY:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(body))
    return bytes(body)


def _door(host: str, further: str) -> Any:
    """The middleware around everything: guard, JSON errors, headers, the count of requests."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refused = refusal(request.method, request.headers, own_names(_port(request), host, further))
            response = _response(refused) if refused is not None else await handler(request)
        except web.HTTPException as error:
            known = "see docs/web.md for the routes" if error.status in (404, 405) else ""
            response = _response(
                error_reply(error.status, f"{error.reason}: {request.method} {request.path[:200]}", remedy=known)
            )
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            response = _response(error_reply(500, "the console has a defect here; its log has the rest"))
        if not response.prepared:
            response.headers.update(assets.HEADERS)
            response.headers.setdefault("Cache-Control", "no-store")
        metrics.WEB_REQUESTS.labels(status=str(response.status)).inc()
        return response

    return door


def _port(request: web.Request) -> int:
    """The port that this connection came in on."""
    name = _end(request, "sockname")
    return int(name[1]) if name else 0


def _near(request: web.Request) -> bool:
    """A connection from this machine to itself has the same address at both ends."""
    ours, theirs = _end(request, "sockname"), _end(request, "peername")
    return bool(ours and theirs) and ours[0] == theirs[0]


def _end(request: web.Request, name: str) -> tuple[Any, ...]:
    end = request.transport.get_extra_info(name) if request.transport else None
    return end if isinstance(end, tuple) else ()


def _response(reply: Reply) -> web.Response:
    response = web.Response(body=reply.body, status=reply.status, headers=dict(reply.headers))
    response.headers["Content-Type"] = (
        reply.content_type if "charset" in reply.content_type else f"{reply.content_type}; charset=utf-8"
    )
    return response

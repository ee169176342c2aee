"""All routes in one table: method and path to what answers them."""

from __future__ import annotations

from tpstream.observability import metrics
from tpstream.observability.health import Health
from tpstream.web import assets
from tpstream.web.commands import Commands
from tpstream.web.live import Live
from tpstream.web.reads import Reads, Registered, Store
from tpstream.web.reply import Call, Reply, Route, json_reply

MAX_BODY = 65_536
"""Bytes of a request's body."""


def table(
    store: Store, health: Health, commands: Commands, registered: Registered = tuple
) -> dict[tuple[str, str], Route]:
    """Every route of the web port."""
    reads, live = Reads(store, registered), Live(store, health, registered)

    async def get_health(call: Call) -> Reply:
        status, report = health.answer()
        return json_reply(report, status)

    async def get_metrics(call: Call) -> Reply:
        return Reply(200, metrics.render(), metrics.CONTENT_TYPE)

    device = "/api/v1/devices/{device:[^/]+}"
    return {
        **{("GET", path): route for path, route in assets.routes().items()},
        ("GET", "/health"): get_health,
        ("GET", "/metrics"): get_metrics,
        ("POST", "/hold"): commands.hold,
        ("POST", "/release"): commands.release,
        ("GET", "/api/v1/live"): live.get,
        ("GET", "/api/v1/devices"): reads.devices,
        ("GET", f"{device}/telemetry"): reads.telemetry,
        ("GET", f"{device}/telemetry/latest"): reads.latest,
        ("POST", f"{device}/commands"): commands.post,
        ("GET", "/api/v1/windows"): reads.windows,
        ("GET", "/api/v1/alarms"): reads.alarms,
        ("GET", "/api/v1/commands"): reads.commands,
        ("GET", "/api/v1/commands/{id:[^/]+}"): reads.command,
        ("GET", "/api/v1/dead_letters"): reads.dead_letters,
    }

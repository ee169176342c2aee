"""The parts of `tpstream up`: their commands and how each shows that it is ready."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

from tpstream.embedded import apache, ask
from tpstream.embedded import kafka as broker
from tpstream.embedded.part import Lag, Part, Ready
from tpstream.settings import Settings

STORE, KAFKA, BRIDGE, SIMULATOR = "store", "kafka", "bridge", "simulator"
WORKER, WORKER_STORE = "worker", "worker-store"

STOP_ORDER = (BRIDGE, SIMULATOR, WORKER, WORKER_STORE, KAFKA, STORE)
"""Who feeds stops before who is fed, so that nothing that was acknowledged is left in memory."""


def parts(settings: Settings, *, simulate: bool, real_kafka: bool = False) -> dict[str, Part]:
    """What has to run for these settings, by name; a Kafka or store of the user's own is left out.

    `real_kafka`: Apache Kafka in the data folder instead of the embedded broker.
    Raises ConfigurationError where the broker cannot run on this machine.
    """
    environ = settings.environ() | {"PYTHONUNBUFFERED": "1"}
    tpstream = (sys.executable, "-m", "tpstream")
    host = settings.host
    near = settings.reached_host
    web, bridge = f"http://{near}:{settings.web_port}", f"http://{near}:{settings.bridge_web_port}"
    store = "http://{}:{}".format(*settings.store_reached)
    app = ("--app", settings.app) if settings.app else ()

    def worker(role: str) -> dict[str, str]:
        # A name, so that one that was killed need not wait for its own session to end. Not with the embedded broker,
        # where it waits longer for it (measured), and not in a Kafka where other machines' may have the same.
        name = {"TPSTREAM_INSTANCE": settings.instance or f"{role}-1"} if real_kafka else {}
        return environ | {"TPSTREAM_ROLES": role} | name

    every = (
        Part(
            name=STORE,
            command=(sys.executable, "-m", "tpstream.embedded.store"),
            environ=environ,
            ready=_answers_well(f"{store}/ping"),
            share=2.0,
            where=store,
        ),
        _apache(settings) if real_kafka else _embedded(settings),
        Part(
            name=BRIDGE,
            command=(*tpstream, "bridge"),
            environ=environ,
            ready=_bridge(f"{bridge}/health", settings),
            share=2.0,
            where=f"mqtt://{host}:{settings.mqtt_port}",
        ),
        Part(
            name=WORKER,
            command=(*tpstream, "worker", "--roles", "process", *app),
            environ=worker("process"),
            ready=_answers(f"{web}/health"),
            lag=_lag_at(f"{web}/health"),
            share=3.0,
            where=web,
        ),
        Part(
            name=WORKER_STORE,
            command=(*tpstream, "worker", "--roles", "store", *app),
            environ=worker("store"),
            ready=_answers_where_announced(settings),
            lag=_lag_where_announced(settings),
            share=3.0,
        ),
        Part(name=SIMULATOR, command=(*tpstream, "simulate"), environ=environ, share=0.5),
    )
    left_out = {
        KAFKA: bool(settings.kafka),
        STORE: settings.store_host not in ("", host),
        SIMULATOR: not simulate,
    }
    return {part.name: part for part in every if not left_out.get(part.name, False)}


def ports(settings: Settings, names: set[str]) -> dict[str, int]:
    """The setting and number of each port that these parts will listen on."""
    of_part = {
        STORE: {"TPSTREAM_STORE_PORT": settings.store_port},
        KAFKA: {"TPSTREAM_KAFKA_PORT": settings.kafka_port},
        BRIDGE: {"TPSTREAM_MQTT_PORT": settings.mqtt_port, "TPSTREAM_BRIDGE_WEB_PORT": settings.bridge_web_port},
        WORKER: {"TPSTREAM_WEB_PORT": settings.web_port},
    }
    if settings.bridge_way == "broker":
        del of_part[BRIDGE]["TPSTREAM_MQTT_PORT"]
    return {setting: port for name in STOP_ORDER if name in names for setting, port in of_part.get(name, {}).items()}


def _embedded(settings: Settings) -> Part:
    host, port = settings.host, settings.kafka_port
    return Part(
        name=KAFKA,
        command=broker.command(host, port),
        ready=_listens(host, port),
        share=0.5,
        stop_signal=signal.SIGKILL,  # it has nothing to save, and waits for clients that are connected
        forgets=True,
        where=f"{host}:{port}",
    )


def _apache(settings: Settings) -> Part:
    host, port = settings.host, settings.kafka_port
    one = apache.Apache(settings.data_dir / "kafka", host, port)
    one.check()
    reached = f"{settings.reached_host}:{port}"

    async def ready(pid: int) -> bool:
        return await apache.serves(reached)

    return Part(name=KAFKA, command=one.command(), ready=ready, share=2.0, where=f"{host}:{port}")


def _answers(url: str) -> Ready:
    """Anything but silence: how well it is says /health, which also goes by the other parts."""

    async def ready(pid: int) -> bool:
        return await ask.status(url) is not None

    return ready


def _bridge(url: str, settings: Settings) -> Ready:
    """Devices can connect, too, where they connect to the bridge itself."""
    answers, listens = _answers(url), _listens(settings.host, settings.mqtt_port)

    async def ready(pid: int) -> bool:
        return await answers(pid) and (settings.bridge_way != "endpoint" or await listens(pid))

    return ready


def _answers_well(url: str) -> Ready:
    async def ready(pid: int) -> bool:
        return await ask.status(url) == 200

    return ready


def _answers_where_announced(settings: Settings) -> Ready:
    async def ready(pid: int) -> bool:
        url = ask.health_url(settings.data_dir, settings.reached_host, pid)
        return url is not None and await ask.status(url) is not None

    return ready


def _lag_at(url: str) -> Lag:
    async def lag(pid: int) -> float | None:
        return await ask.lag(url)

    return lag


def _lag_where_announced(settings: Settings) -> Lag:
    async def lag(pid: int) -> float | None:
        url = ask.health_url(settings.data_dir, settings.reached_host, pid)
        return None if url is None else await ask.lag(url)

    return lag


def _listens(host: str, port: int) -> Ready:
    async def ready(pid: int) -> bool:
        with suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
        return False

    return ready

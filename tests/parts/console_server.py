"""The console on Faust's real web server, over rows in memory: what a worker has, without Kafka and store."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust

from tpstream.bus import topics
from tpstream.bus.envelope import Headers
from tpstream.devices.catalog import Catalog
from tpstream.errors import Unavailable
from tpstream.messages import CommandRequest, Device
from tpstream.observability.health import Health, Part
from tpstream.settings import Settings
from tpstream.web.install import install

Row = dict[str, Any]


class Memory:
    """Rows as the store's reader gives them; `away` is a message while the store is away."""

    def __init__(self) -> None:
        self.away = ""
        self.rows: dict[str, list[Row]] = {
            name: [] for name in ("devices", "latest", "telemetry", "windows", "alarms", "commands", "dead_letters")
        }

    def _rows(self, name: str) -> list[Row]:
        if self.away:
            raise Unavailable(self.away)
        return self.rows[name]

    async def devices(self) -> Sequence[Mapping[str, Any]]:
        return self._rows("devices")

    async def latest(self, device: str | None = None) -> Sequence[Mapping[str, Any]]:
        return [row for row in self._rows("latest") if device in (None, row["device"])]

    async def telemetry(self, device: str, key: str, start: int, end: int, limit: int) -> Sequence[Mapping[str, Any]]:
        rows = self._rows("telemetry")
        return [r for r in rows if r["device"] == device and r["key"] == key and start <= r["ts"] < end][-limit:]

    async def windows(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return self._rows("windows")[:limit]

    async def alarms(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return self._rows("alarms")[:limit]

    async def commands(self, limit: int, id: str | None = None) -> Sequence[Mapping[str, Any]]:
        return [row for row in self._rows("commands") if id in (None, row["id"])][:limit]

    async def dead_letters(self, limit: int) -> Sequence[Mapping[str, Any]]:
        return self._rows("dead_letters")[:limit]

    def point(self, device: str, key: str, number: float, ts: int | None = None) -> None:
        """A number arrives."""
        ts = int(time.time() * 1000) if ts is None else ts
        row = {
            "device": device,
            "key": key,
            "ts": ts,
            "received_at": ts,
            "kind": "number",
            "number": number,
            "text": "",
        }
        self.rows["telemetry"].append(row)
        self.rows["latest"] = [r for r in self.rows["latest"] if (r["device"], r["key"]) != (device, key)] + [row]


class Sent:
    """Takes what a producer would; `acknowledged` False: Kafka is away."""

    def __init__(self) -> None:
        self.records: list[tuple[str, int | None, bytes, CommandRequest]] = []
        self.wait: Any = None
        self.available = True

    def add(
        self, topic: str, partition: int | None, key: bytes, value: bytes | None, headers: Headers, timestamp: int
    ) -> int:
        self.records.append((topic, partition, key, topics.downlink_command.decode(value or b"")))
        return 0

    async def flush(self) -> None:
        if self.wait is not None:
            await self.wait()


class Console:
    """`async with Console(tmp_path) as console: … console.url`."""

    def __init__(
        self, folder: Path, *, store: Any = None, producer: Any = None, settings: Settings | None = None
    ) -> None:
        self.store = Memory() if store is None else store
        self.sent = Sent() if producer is None else producer
        self.health = Health()
        self.health.register("kafka", lambda: Part(True, "connected"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.app = faust.App(
            "console",
            broker="kafka://127.0.0.1:1",
            datadir=str(folder),
            web_bind="127.0.0.1",
            web_port=self.port,
            env_prefix="TPSTREAM_TEST_FAUST_",
        )
        settings = settings or Settings()
        self.catalog = Catalog(settings)
        services: Any = SimpleNamespace(settings=settings, catalog=self.catalog)
        install(self.app, services, self.health, self.sent, store=self.store)

    def register(self, device: Device) -> None:
        """As the worker learns of it: from the configuration topic."""
        self.catalog.take(topics.config_devices.name, device.device, topics.config_devices.encode(device))

    async def __aenter__(self) -> Console:
        await self.app.web.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.web.stop()

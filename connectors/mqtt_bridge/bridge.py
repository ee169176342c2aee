"""The bridge put together: a way in, the intake, the producer, the downlink reader, the web port."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Protocol

from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink_reader import DownlinkReader, Publisher
from connectors.mqtt_bridge.endpoint.endpoint import Endpoint
from connectors.mqtt_bridge.identity import Trust
from connectors.mqtt_bridge.intake import Intake
from connectors.mqtt_bridge.metrics import Metrics
from connectors.mqtt_bridge.web import Web
from tpstream.bus.envelope import WayIn
from tpstream.bus.producer import Producer
from tpstream.bus.provision import provision
from tpstream.errors import ConfigurationError
from tpstream.observability.health import Health, Part
from tpstream.settings import Settings

log = logging.getLogger(__name__)

STOP_FLUSH_SECONDS = 2.5
"""Seconds of an orderly stop for Kafka to acknowledge what was read."""

NOTES_FLUSH_SECONDS = 0.5
"""Seconds for it to acknowledge that the devices are gone."""

_WAYS = {"endpoint": WayIn.ENDPOINT, "broker": WayIn.BROKER}


class Way(Publisher, Protocol):
    """A way in: `endpoint/` and `broker/` each have one."""

    def bind(self) -> None:
        """Take what must be had before anything else (ports). ConfigurationError if it cannot."""
        ...

    async def start(self) -> None:
        """Let devices' messages in."""
        ...

    def hold(self) -> None:
        """Read nothing more."""
        ...

    def release(self) -> None:
        """Read again."""
        ...

    async def stop_accepting(self) -> None:
        """Take no new connections."""
        ...

    async def close(self) -> None:
        """Say good-bye to all."""
        ...

    @property
    def well(self) -> bool:
        """Whether devices' messages can come in."""
        ...

    @property
    def detail(self) -> str:
        """One line for /health."""
        ...

    @property
    def connections(self) -> int:
        """Connections there are."""
        ...


class Bridge:
    """One MQTT bridge. `start`, then `stop`; `hold` and `release` between."""

    def __init__(self, settings: Settings) -> None:
        way_in = _WAYS.get(settings.bridge_way)
        if way_in is None:
            raise ConfigurationError(f"TPSTREAM_BRIDGE_WAY={settings.bridge_way!r} is neither endpoint nor broker")
        trust = Trust.parse(settings.trusted_identity, way_in)
        self.counts = Counts()
        self.budget = Budget(settings.max_buffered_bytes)
        self.intake = Intake(trust, way_in, settings.partitions, self.budget, self.counts)
        self.producer = Producer(
            settings.bootstrap,
            settings.partitions,
            delivered=self.intake.delivered,
            client_id="tpstream-bridge",
            linger_ms=settings.linger_ms,
            max_request=max(20_000_000, settings.max_payload + 1_000_000),
        )
        self.intake.producer = self.producer
        self.way: Way
        if way_in is WayIn.ENDPOINT:
            self.way = Endpoint(settings, trust, self.intake, self.budget, self.counts)
        else:
            from connectors.mqtt_bridge.broker.way import Broker

            self.way = Broker(settings, trust, self.intake, self.budget, self.counts)
        self.reader = DownlinkReader(settings.bootstrap, settings.partitions, self.counts, self.way)
        self._settings = settings
        self._started = False
        self._holding = False
        self._web = Web(
            settings.host, settings.bridge_web_port, self._health(), self._metrics(), self.hold, self.release
        )

    async def start(self) -> None:
        """Take the ports, wait for Kafka and its topics, then let devices in."""
        self.way.bind()
        await self._web.start()
        await provision(self._settings)
        await self.producer.start()
        await self.reader.start()
        await self.way.start()
        self._started = True

    async def hold(self) -> None:
        """Read nothing more from any device; returns when Kafka has all that was read."""
        self._holding = True
        self.way.hold()
        if self._started:
            await self.producer.flush()
        if not self._holding:  # Kafka took so long that whoever asked has released again
            return
        self.intake.hold()
        if self._started:
            await self.producer.flush()

    async def release(self) -> None:
        """Read again."""
        self._holding = False
        self.intake.release()
        self.way.release()

    async def stop(self) -> None:
        """Stop in good order: nothing that was acknowledged is lost, nothing that was read is unacknowledged."""
        await self.way.stop_accepting()
        self.way.hold()
        await self._flush(STOP_FLUSH_SECONDS)
        await self.way.close()
        self.intake.release()
        await self._flush(NOTES_FLUSH_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self.reader.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self.producer.stop()
        await self._web.stop()

    async def _flush(self, seconds: float) -> None:
        if not self._started:
            return
        try:
            async with asyncio.timeout(seconds):
                await self.producer.flush()
        except TimeoutError:
            log.warning(
                "stopping without Kafka's word for %d records: they were not acknowledged to their devices, "
                "which will send them again",
                self.producer.unacknowledged,
            )

    def _health(self) -> Health:
        health = Health()
        health.register("kafka", self._kafka_health)
        health.register("mqtt", self._mqtt_health)
        health.number("connections", lambda: self.way.connections)
        health.number("unacknowledged", lambda: self.producer.unacknowledged)
        health.number("buffered_bytes", lambda: self.budget.used)
        return health

    def _kafka_health(self) -> Part:
        if not self._started:
            return Part(False, f"waiting for Kafka at {self._settings.bootstrap}")
        if not self.producer.available:
            return Part(False, f"Kafka at {self._settings.bootstrap} does not take records; devices wait")
        return Part(True, self._settings.bootstrap)

    def _mqtt_health(self) -> Part:
        return Part(self.way.well, f"{self.way.detail}{'; on hold' if self._holding else ''}")

    def _metrics(self) -> Metrics:
        return Metrics(
            self.counts,
            {
                "connections": ("Connections there are", lambda: self.way.connections),
                "unacknowledged_records": (
                    "Records that Kafka has not acknowledged",
                    lambda: self.producer.unacknowledged,
                ),
                "buffered_bytes": ("Bytes counted against TPSTREAM_MAX_BUFFERED_BYTES", lambda: self.budget.used),
                "kafka_available": ("1 while Kafka takes records", lambda: float(self.producer.available)),
            },
        )

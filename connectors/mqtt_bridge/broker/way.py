"""The way in through a broker: a client of it that acknowledges after Kafka."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import deque

import aiomqtt

from connectors.mqtt_bridge.broker.client import DOWNLINKS, BrokerClient, address
from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink import Downlink, Receipt
from connectors.mqtt_bridge.endpoint.stream import KEPT
from connectors.mqtt_bridge.identity import PREFIX, Trust
from connectors.mqtt_bridge.intake import Intake
from connectors.mqtt_bridge.publish import Publish
from tpstream.bus.envelope import WayIn
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 5.0)
"""First and longest pause between attempts to connect."""

UPLINK_FILTERS = tuple(
    f"{root}/+/{rest}"
    for root in ("devices", "gateway")
    for rest in (
        "telemetry",
        "attributes",
        "attributes/+",
        "event",
        "event/+",
        "command/response",
        "command/response/+",
        "attributes/set/response",
        "attributes/set/response/+",
    )
)
"""The uplink topics of the dialect `native`."""


class _Session:
    """Our session with the broker over one connection: publishes taken from it, in order."""

    way_in = WayIn.BROKER
    login: str | None = None

    def __init__(self, number: int) -> None:
        self.number = number
        self.client: BrokerClient | None = None
        self.in_flight: deque[Publish] = deque()
        self.idle = asyncio.Event()
        self.idle.set()

    def landed(self) -> None:
        """Acknowledge what is in Kafka, in the order in which it came, in one write."""
        done = []
        while self.in_flight and self.in_flight[0].landed:
            done.append(self.in_flight.popleft())
        if self.client is not None:
            self.client.reading.acknowledge(done)
        if not self.in_flight:
            self.idle.set()


class Broker:
    """The way in through TPSTREAM_BROKER_URL."""

    way_in = WayIn.BROKER

    def __init__(self, settings: Settings, trust: Trust, intake: Intake, budget: Budget, counts: Counts) -> None:
        self._settings = settings
        self._intake = intake
        self._budget = budget
        self._counts = counts
        self._filters = [f"{PREFIX}+/{one}" for one in UPLINK_FILTERS] if trust.prefix else []
        self._filters += UPLINK_FILTERS if trust.topic else ()
        # The same after a restart: the broker's session, with its packet ids, goes on too.
        name = f"{settings.broker_url} {settings.broker_client_id}".encode()
        self._number = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
        self._session = _Session(self._number)
        self._client: BrokerClient | None = None
        self._connected = asyncio.Event()
        self._downlinks: dict[int, Downlink] = {}
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._held = False
        self._said = False
        self._was_connected = False

    # The life of a way in

    def bind(self) -> None:
        """Check the broker's URL. ConfigurationError: it is none."""
        address(self._settings.broker_url)

    async def start(self) -> None:
        """Connect, in the background, for as long as it takes."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def hold(self) -> None:
        """Read nothing more."""
        self._held = True
        self._settle()

    def release(self) -> None:
        """Read again."""
        self._held = False
        self._settle()

    async def stop_accepting(self) -> None:
        """There is nobody to accept."""

    async def close(self) -> None:
        """Disconnect; the broker keeps the session."""
        if self._client is not None and self._connected.is_set():
            await self._client.settle()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.5)

    @property
    def well(self) -> bool:
        """Whether the broker is there."""
        return self._connected.is_set()

    @property
    def detail(self) -> str:
        """One line for /health."""
        where = self._where()
        return f"connected to the broker at {where}" if self.well else f"waiting for the broker at {where}"

    @property
    def connections(self) -> int:
        """One, or none."""
        return int(self.well)

    async def room(self) -> None:
        """Wait until a downlink can be handed to the broker."""
        while not self._connected.is_set() or len(self._downlinks) >= DOWNLINKS:
            self._room.clear()
            await self._connected.wait()
            if len(self._downlinks) >= DOWNLINKS:
                await self._room.wait()

    def deliver(self, downlink: Downlink) -> None:
        """Publish to the broker, QoS 1; kept until it has acknowledged."""
        assert self._client is not None
        self._downlinks[self._client.send(downlink.topic, downlink.payload)] = downlink
        self._counts.downlinks_sent += 1

    # Connecting

    async def _run(self) -> None:
        delay = RETRY_SECONDS[0]
        while True:
            # What the last connection brought comes again on the next: have it acknowledged first.
            await self._session.idle.wait()
            while self._budget.full or self._held:
                await asyncio.sleep(0.1)
            try:
                await self._follow()
                delay = RETRY_SECONDS[0]
            except ConfigurationError as error:
                self._complain(str(error))
            except (aiomqtt.MqttError, OSError, ValueError) as error:
                self._complain(f"the broker at {self._where()} is not reachable ({error}); waiting for it")
            finally:
                self._connected.clear()
                self._session.client = None
                self._client = None
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_SECONDS[1])

    async def _follow(self) -> None:
        """One connection, from its beginning to its end."""
        session = self._session = _Session(self._number)
        client = BrokerClient(self._settings, self._take, self._published)
        session.client = self._client = client
        async with client:
            if self._was_connected and not client.session_present:
                # It has lost our session, and gives its packet ids anew: decode is not to take them for repeats.
                self._number = session.number = secrets.randbits(64)
            self._was_connected = True
            await client.follow(self._filters)
            log.info("connected to the broker at %s", self._where())
            self._said = False
            again, self._downlinks = list(self._downlinks.values()), {}
            for downlink in again:
                self.deliver(downlink)
            self._connected.set()
            self._settle()
            await asyncio.shield(client.lost)

    def _complain(self, text: str) -> None:
        if not self._said:
            log.warning("%s", text)
        self._said = True

    def _where(self) -> str:
        found = address(self._settings.broker_url)
        return f"{found['hostname']}:{found['port']}"

    # Messages

    def _take(self, publishes: list[Publish]) -> None:
        session = self._session
        for publish in publishes:
            publish.source = session
            if publish.size > self._settings.max_payload:
                publish.digest = hashlib.sha256(publish.payload).hexdigest()
                publish.payload = publish.payload[:KEPT]
            if publish.qos:
                session.in_flight.append(publish)
                session.idle.clear()
            self._budget.take(publish.cost)
            self._intake.publish(publish)
        if self._budget.full:
            self._settle()

    def _settle(self) -> None:
        """Read, or do not, as the bound over all and `hold` say."""
        if self._client is None:
            return
        if self._held or self._budget.full:
            self._client.reading.pause()
            if not self._held:
                self._budget.wait(self._settle)
        else:
            self._client.reading.resume()

    def _published(self, packet_id: int) -> None:
        downlink = self._downlinks.pop(packet_id, None)
        self._room.set()
        if downlink is not None:
            self._intake.receipt(self._session, Receipt(downlink, 1))

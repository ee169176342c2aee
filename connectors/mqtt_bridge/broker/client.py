"""aiomqtt's client, made to acknowledge only when it is told to, and to drop nothing."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from connectors.mqtt_bridge.broker.reading import Reading
from connectors.mqtt_bridge.publish import Publish
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

IN_FLIGHT = 1_000
"""Publishes that the broker sends without our acknowledgement; it keeps the rest."""

SESSION_SECONDS = 7 * 24 * 3600
"""Seconds that the broker keeps our session, and what comes for it, while the bridge is away."""

KEEP_ALIVE = 60
DOWNLINKS = 100
"""Publishes to the broker without its acknowledgement."""

NOTHING = "tpstream/nothing"
"""A topic that nobody subscribes to."""

SETTLE_SECONDS = 1.0

_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}


class BrokerClient(aiomqtt.Client):
    """One connection to the broker, with the persistent session of TPSTREAM_BROKER_CLIENT_ID."""

    def __init__(
        self,
        settings: Settings,
        take: Callable[[list[Publish]], None],
        published: Callable[[int], None],
    ) -> None:
        super().__init__(
            protocol=aiomqtt.ProtocolVersion.V5,
            identifier=settings.broker_client_id,
            clean_start=False,
            keepalive=KEEP_ALIVE,
            max_inflight_messages=DOWNLINKS,
            properties=_connect_properties(settings),
            timeout=10,
            **address(settings.broker_url),
        )
        self.session_present = False
        """Whether the broker had kept our session: its packet ids go on. Known once connected."""
        self._published = published
        # Reading takes publishes before paho sees them; so nobody but us acknowledges them.
        self.reading = Reading(self._client, self._loop, take, self._fail)

    @property
    def lost(self) -> asyncio.Future[None]:
        """Done when the connection has ended."""
        return self._disconnected

    async def follow(self, filters: list[str]) -> None:
        """Subscribe with QoS 1. ConfigurationError: the broker refuses one."""
        options = SubscribeOptions(qos=1, noLocal=True, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
        codes = await self.subscribe([(one, options) for one in filters])
        for one, code in zip(filters, codes, strict=True):
            if getattr(code, "is_failure", False):
                raise ConfigurationError(f"the broker refuses the subscription to {one} ({code}); check its ACL")

    async def settle(self) -> None:
        """Return when the broker has read our acknowledgements, or after a second.

        A socket that is closed with unread data resets the connection, and acknowledgements that the
        broker had not read yet go with it: it would send those messages again. So the rest is read and
        dropped, and a question is asked that the broker can only answer behind them.
        """
        self.reading.discard()
        with contextlib.suppress(aiomqtt.MqttError):
            await self.unsubscribe(NOTHING, timeout=SETTLE_SECONDS)

    def send(self, topic: str, payload: bytes) -> int:
        """Publish with QoS 1 and return the packet id; `published` is called with it when it is acknowledged."""
        return int(self._client.publish(topic, payload, qos=1).mid)

    def _on_connect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        self.session_present = bool(flags.session_present)
        super()._on_connect(client, userdata, flags, reason_code, properties)

    def _on_socket_open(self, client: Any, userdata: Any, sock: Any) -> None:
        # aiomqtt reads here with paho's own loop; called in the thread that connects.
        def begin() -> None:
            self.reading.start()
            self._misc_task = self._loop.create_task(self._misc_loop())

        self._loop.call_soon_threadsafe(begin)

    def _on_socket_close(self, client: Any, userdata: Any, sock: Any) -> None:
        self.reading.end()
        if self._misc_task is not None and not self._misc_task.done():
            self._loop.call_soon_threadsafe(self._misc_task.cancel)

    def _on_publish(self, client: Any, userdata: Any, mid: int, reason_code: Any, properties: Any) -> None:
        super()._on_publish(client, userdata, mid, reason_code, properties)
        if not reason_code.is_failure:
            self._published(mid)

    def _fail(self, error: Exception) -> None:
        if not self._disconnected.done():
            self._disconnected.set_exception(aiomqtt.MqttError(f"the broker sent what is not MQTT: {error}"))


def _connect_properties(settings: Settings) -> Properties:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_SECONDS
    properties.ReceiveMaximum = IN_FLIGHT
    properties.MaximumPacketSize = settings.max_packet
    return properties


def address(url: str) -> dict[str, Any]:
    """Where TPSTREAM_BROKER_URL points, as aiomqtt's arguments. ConfigurationError if it is no such URL."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or port == -1:
        raise ConfigurationError(
            f"TPSTREAM_BROKER_URL={url!r} is not of the form mqtt://[user:password@]host[:port] (or mqtts://)"
        )
    found: dict[str, Any] = {"hostname": parts.hostname, "port": port or _DEFAULT_PORTS[parts.scheme]}
    if parts.username:
        found["username"] = unquote(parts.username)
        found["password"] = unquote(parts.password or "")
    if parts.scheme == "mqtts":
        found["tls_context"] = ssl.create_default_context()
    return found

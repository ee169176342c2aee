"""The endpoint: all connections, who they are, and who listens for which device."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket

from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink import Downlink
from connectors.mqtt_bridge.endpoint.connection import Connection
from connectors.mqtt_bridge.endpoint.logins import judge
from connectors.mqtt_bridge.endpoint.packets import V5, Connect
from connectors.mqtt_bridge.endpoint.reasons import Reason
from connectors.mqtt_bridge.endpoint.session import Session
from connectors.mqtt_bridge.endpoint.sessions import CleanSessions, Client, SessionStore
from connectors.mqtt_bridge.identity import Trust
from connectors.mqtt_bridge.intake import Intake
from tpstream.bus.envelope import WayIn
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

log = logging.getLogger(__name__)

CHECK_SECONDS = 1.0
"""How often all connections are looked at for silence."""

CLOSE_SECONDS = 1.5
"""Seconds for all connections to close, those that linger included."""

BACKLOG = 1_000
"""Connections that may wait to be accepted."""


class _Session(Session):
    """A session that tells its connection when publishes have landed."""

    connection: Connection

    def landed(self) -> None:
        super().landed()
        self.connection.landed()


class Endpoint:
    """The way in on which devices connect to us."""

    way_in = WayIn.ENDPOINT

    def __init__(
        self,
        settings: Settings,
        trust: Trust,
        intake: Intake,
        budget: Budget,
        counts: Counts,
        store: SessionStore | None = None,
    ) -> None:
        self.intake = intake
        self.budget = budget
        self.counts = counts
        self.loop = asyncio.get_running_loop()
        self._settings = settings
        self._trust = trust
        self._store = store or CleanSessions()
        self._connections: dict[Connection, None] = {}
        self._clients: dict[Client, Connection] = {}
        self._listeners: dict[str, dict[Connection, None]] = {}
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._checks: asyncio.TimerHandle | None = None
        self._frozen = False
        self._stopping = False

    # The life of a way in

    def bind(self) -> None:
        """Take the port, without listening on it yet. ConfigurationError if another has it."""
        host, port = self._settings.host, self._settings.mqtt_port
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, port))
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRINUSE:
                raise ConfigurationError(
                    f"port {port} is taken on {host}; set TPSTREAM_MQTT_PORT to a free one"
                ) from None
            raise ConfigurationError(
                f"cannot listen on {host}:{port} ({error.strerror}); check TPSTREAM_HOST and TPSTREAM_MQTT_PORT"
            ) from None
        self._socket = made

    async def start(self) -> None:
        """Listen for devices."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None
        try:
            self._server = await self.loop.create_server(lambda: Connection(self), sock=self._socket, backlog=BACKLOG)
        except OSError as error:
            raise ConfigurationError(
                f"port {self._settings.mqtt_port} is taken ({error.strerror}); set TPSTREAM_MQTT_PORT to a free one"
            ) from None
        self._checks = self.loop.call_later(CHECK_SECONDS, self._check)
        log.info("devices connect to mqtt://%s:%d", self._settings.host, self._settings.mqtt_port)

    def hold(self) -> None:
        """Take nothing more from any device."""
        self._frozen = True
        for connection in list(self._connections):
            connection.freeze(True)

    def release(self) -> None:
        """Go on."""
        self._frozen = False
        for connection in list(self._connections):
            connection.freeze(False)

    async def close(self) -> None:
        """Close all connections in good order; what was read should be acknowledged by now."""
        self._stopping = True
        if self._checks is not None:
            self._checks.cancel()
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        left = list(self._connections)
        for connection in left:
            connection.end("bridge stops", Reason.SERVER_SHUTTING_DOWN)
        waiting = [self.loop.create_task(connection.lost.wait()) for connection in left]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()

    async def stop_accepting(self) -> None:
        """Refuse new connections."""
        self._stopping = True
        if self._server is not None:
            self._server.close()

    @property
    def detail(self) -> str:
        """One line for /health."""
        return f"{len(self._connections)} connections on port {self._settings.mqtt_port}"

    @property
    def connections(self) -> int:
        """Connections there are."""
        return len(self._connections)

    @property
    def well(self) -> bool:
        """Whether devices can connect."""
        return self._server is not None and not self._stopping

    async def room(self) -> None:
        """Wait until downlinks can be taken: always; each device has a bounded queue of its own."""

    def deliver(self, downlink: Downlink) -> None:
        """Publish to the connections that subscribed to it."""
        for connection in list(self._listeners.get(downlink.device, ())):
            before = connection.session.outbox.dropped
            connection.deliver(downlink)
            self.counts.downlinks_sent += 1
            self.counts.downlinks_dropped += connection.session.outbox.dropped - before

    # What connections tell

    def begin(self, connection: Connection) -> Session:
        """A session for a new connection."""
        session = _Session(self._settings, self.budget, self.loop.time())
        session.connection = connection
        self._connections[connection] = None
        if self._frozen:
            session.freeze(True)
        return session

    async def open(self, connection: Connection, connect: Connect) -> None:
        """Answer CONNECT: who is it, is there room, is there a session of that client already?"""
        session = connection.session
        refusal, text, login = self._judge(connect)
        if refusal is not Reason.SUCCESS:
            self.counts.refused_connections[text] += 1
            connection.do(session.refuse(refusal, text))
            return
        assigned = not connect.client_id
        client = Client(login, connect.client_id or f"tp-{secrets.token_hex(8)}")
        if (old := self._clients.get(client)) is not None:
            old.end("taken over", Reason.TAKEN_OVER)
        kept = await self._store.take(client, connect.clean)
        if session.closed:
            await self._store.release(client, kept, 0)
            return
        if (rival := self._clients.get(client)) is not None:  # it was let in while we waited for the store
            rival.end("taken over", Reason.TAKEN_OVER)
        self._clients[client] = connection
        session.accept(login, kept, client, assigned, connect)
        self.counts.connected += 1
        if login is not None:
            self.intake.connected(session, login)
        connection.proceed()

    def _judge(self, connect: Connect) -> tuple[Reason, str, str | None]:
        verdict = judge(connect, self._trust)
        if verdict.reason is not Reason.SUCCESS:
            return verdict.reason, verdict.text, None
        if not connect.client_id and connect.version != V5 and not connect.clean:
            return Reason.CLIENT_ID_NOT_VALID, "no client id", None
        if len(connect.client_id) > 1_000:
            return Reason.CLIENT_ID_NOT_VALID, "client id too long", None
        if self._stopping or self.budget.full or len(self._connections) > self._settings.max_connections:
            return Reason.SERVER_BUSY, "busy", None
        return Reason.SUCCESS, "", verdict.login

    def listens(self, connection: Connection, device: str) -> None:
        """A connection subscribed to a device's downlink."""
        self._listeners.setdefault(device, {})[connection] = None
        if connection.session.login is None:
            self.intake.connected(connection.session, device)

    def deafened(self, connection: Connection, device: str) -> None:
        """A connection listens to a device no more."""
        self._unlisten(connection, device)
        if connection.session.login is None:
            self.intake.disconnected(connection.session, device, "unsubscribed")

    def _unlisten(self, connection: Connection, device: str) -> None:
        listeners = self._listeners.get(device)
        if listeners is not None:
            listeners.pop(connection, None)
            if not listeners:
                del self._listeners[device]

    def ended(self, connection: Connection, reason: str) -> None:
        """A session is over, once; its socket may live on for a moment."""
        session = connection.session
        devices = session.subscriptions.devices
        for device in devices:
            self._unlisten(connection, device)
        if self._clients.get(session.client) is connection:
            del self._clients[session.client]
        self.counts.disconnected[reason if session.open else f"{reason}, not connected"] += 1
        if session.open:
            session.open = False
            for device in devices if session.login is None else (session.login,):
                self.intake.disconnected(session, device, reason)
            task = self.loop.create_task(self._store.release(session.client, session.kept, 0))
            connection.opening = task  # a task that nobody refers to may vanish

    def gone(self, connection: Connection, reason: str) -> None:
        """A socket is no more."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        self.budget.forget(connection.proceed)
        if not connection.session.closed:
            self.ended(connection, reason)
        connection.session.gone()
        self.budget.wake()

    def _check(self) -> None:
        now = self.loop.time()
        for connection in list(self._connections):
            effects = connection.session.check(now)
            if effects:
                connection.do(effects)
        self._checks = self.loop.call_later(CHECK_SECONDS, self._check)

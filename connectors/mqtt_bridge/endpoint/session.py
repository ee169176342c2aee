"""One device's session at the endpoint: bytes, clock and events in, effects out. No sockets, no tasks.

What is to be written gathers in `out`; whoever calls a method writes it afterwards. Where
`held` says so, the session takes no more from its stream, and the socket is not to be read.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum

from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.downlink import Downlink, Receipt
from connectors.mqtt_bridge.endpoint import encode
from connectors.mqtt_bridge.endpoint import properties as p
from connectors.mqtt_bridge.endpoint.effects import Arrived, Closed, Deafened, Dropped, Effect, Listens
from connectors.mqtt_bridge.endpoint.outbox import Outbox
from connectors.mqtt_bridge.endpoint.packets import (
    V5,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Puback,
    Subscribe,
    Unsubscribe,
)
from connectors.mqtt_bridge.endpoint.reasons import Reason, Violation
from connectors.mqtt_bridge.endpoint.sessions import Client, Kept
from connectors.mqtt_bridge.endpoint.stream import Stream
from connectors.mqtt_bridge.endpoint.subscriptions import Subscriptions
from connectors.mqtt_bridge.publish import OVERHEAD, Publish
from tpstream.bus.envelope import WayIn
from tpstream.settings import Settings

CONNECT_SECONDS = 10.0
"""Seconds that a connection has for its CONNECT."""

LARGE = 64 * 1024
"""Packets above this count against the budget from their fixed header on, as they come in."""


class Held(StrEnum):
    """Why a session takes nothing from its stream at the moment."""

    OPENING = "opening"
    """CONNECT is not answered yet."""
    RECEIVE_MAXIMUM = "receive_maximum"
    BUDGET = "budget"
    FROZEN = "frozen"
    """The whole endpoint holds."""


class Session:
    """Speaks MQTT 3.1.1 and 5 with one client."""

    way_in = WayIn.ENDPOINT

    def __init__(self, settings: Settings, budget: Budget, now: float) -> None:
        self.login: str | None = None
        self.number = 0
        self.client = Client(None, "")
        self.kept = Kept(0)
        self.version = 0
        self.held: Held | None = None
        self.open = False
        self.closed = False
        self.out = bytearray()
        self.subscriptions = Subscriptions(None, anonymous=False)
        self.outbox = Outbox()
        self._settings = settings
        self._budget = budget
        self._stream = Stream(settings.max_packet, settings.max_payload)
        self._in_flight: deque[Publish] = deque()
        self._keep_alive = 0.0
        self._last_seen = now
        self._frozen = False
        self._reserved = 0

    @property
    def unacknowledged(self) -> int:
        """QoS 1 publishes taken and not acknowledged."""
        return len(self._in_flight)

    # What comes from the socket

    def receive(self, data: bytes, now: float) -> list[Effect]:
        """Take bytes that were read at `now` (seconds, monotonic)."""
        self._last_seen = now
        self._stream.feed(data)
        return [] if self.held else self.proceed(now)

    def proceed(self, now: float) -> list[Effect]:
        """Take from the stream what may be taken: after `receive`, and when the reason to hold is gone."""
        effects: list[Effect] = []
        if self.closed or (self.held is Held.OPENING and not self.open):
            return effects
        if self.held is not None:  # its clock stood still
            self._last_seen = now
        self.held = Held.FROZEN if self._frozen else None
        stream, in_flight, maximum = self._stream, self._in_flight, self._settings.receive_maximum
        try:
            while not self.held:
                if (len(in_flight) >= maximum or self._budget.full) and self._must_hold():
                    break
                packet = stream.next()
                if packet is None:
                    self._reserve(stream.expected)
                    break
                if self._reserved:
                    self._give_back_reserved()
                if type(packet) is Publish:
                    self._publish(packet, effects)
                else:
                    self._packet(packet, effects)
                if self.closed:
                    break
        except Violation as violation:
            word = violation.reason.name.lower().replace("_", " ")
            self._close(violation.reason, word, effects, str(violation))
        return effects

    def _must_hold(self) -> bool:
        """Whether what comes next has to wait. Only a publish does: pings are answered."""
        head = self._stream.head()
        if head >> 4 != 3 or not head & 6:  # a QoS 0 publish is taken, or dropped when it is there
            return False
        self.held = Held.RECEIVE_MAXIMUM if len(self._in_flight) >= self._settings.receive_maximum else Held.BUDGET
        return True

    def _reserve(self, expected: int) -> None:
        """Count a large packet as it begins, so that half-sent ones are bounded too."""
        if expected > LARGE and not self._reserved:
            if self._budget.full:
                self.held = Held.BUDGET
            else:
                self._reserved = expected
                self._budget.take(expected)

    def _give_back_reserved(self) -> None:
        self._budget.give_back(self._reserved)
        self._reserved = 0

    def _publish(self, packet: Publish, effects: list[Effect]) -> None:
        if not self.open:
            raise Violation(Reason.PROTOCOL_ERROR, "a publish before CONNECT")
        packet.source = self
        if packet.qos:
            self._in_flight.append(packet)
        elif self._budget.full:
            effects.append(Dropped(packet))
            return
        self._budget.used += len(packet.payload) + OVERHEAD  # Budget.take, on the hot path
        effects.append(packet)

    def _packet(self, packet: Packet, effects: list[Effect]) -> None:
        match packet:
            case Connect():
                if self.version:
                    raise Violation(Reason.PROTOCOL_ERROR, "a second CONNECT")
                self.version = packet.version
                self.held = Held.OPENING
                effects.append(Arrived(packet))
            case Ping():
                self.out += encode.PINGRESP
            case Puback():
                receipt = self.outbox.acknowledged(packet.packet_id)
                if receipt is not None and packet.reason < 0x80:
                    effects.append(receipt)
                self._send_queued(effects)
            case Subscribe():
                self._subscribe(packet, effects)
            case Unsubscribe():
                codes = [
                    Reason.SUCCESS if self.subscriptions.remove(one) else Reason.NO_SUBSCRIPTION
                    for one in packet.filters
                ]
                self.out += encode.unsuback(self.version, packet.packet_id, codes)
                effects.extend(Deafened(device) for device in self.subscriptions.silent())
            case Disconnect():
                # 0x04 asks for the will; wills are not published yet.
                self.closed = True
                effects.append(Closed("disconnect"))

    def _subscribe(self, packet: Subscribe, effects: list[Effect]) -> None:
        if packet.identifier:
            raise Violation(Reason.SUBSCRIPTION_IDS_NOT_SUPPORTED, "a subscription identifier")
        codes: list[int] = []
        listens: list[Effect] = []
        for wanted, qos in packet.filters:
            granted = min(qos, 1)
            refusal, device = self.subscriptions.add(wanted, granted)
            codes.append(granted if refusal is None else (refusal if self.version == V5 else 0x80))
            if device:
                listens.append(Listens(device))
        # The answer stands before whatever the subscription brings.
        self.out += encode.suback(self.version, packet.packet_id, codes)
        effects.extend(listens)

    # What comes from the shell

    def accept(self, login: str | None, kept: Kept, client: Client, assigned: bool, connect: Connect) -> None:
        """Answer CONNECT: the client is in. Call `proceed` then: more may have come behind it."""
        self.login, self.kept, self.client, self.number = login, kept, client, kept.number
        self.subscriptions = Subscriptions(login, anonymous=login is None)
        self.outbox = Outbox(connect.receive_maximum, connect.max_packet, connect.version)
        self._keep_alive = connect.keep_alive * 1.5
        self.open = True
        offered: p.Properties = {
            p.RECEIVE_MAXIMUM: self._settings.receive_maximum,
            p.MAXIMUM_QOS: 1,
            p.MAXIMUM_PACKET: self._settings.max_packet,
            p.SUBSCRIPTION_IDENTIFIERS_AVAILABLE: 0,
            p.SHARED_AVAILABLE: 0,
        }
        if connect.session_expiry:
            offered[p.SESSION_EXPIRY] = 0
        if assigned:
            offered[p.ASSIGNED_CLIENT_ID] = client.client_id
        self.out += encode.connack(self.version, Reason.SUCCESS, offered)

    def refuse(self, reason: Reason, text: str) -> list[Effect]:
        """Answer CONNECT: the client is not let in."""
        self.out += encode.connack(self.version, reason)
        self.closed = True
        return [Closed(text)]

    def landed(self) -> None:
        """Acknowledge what is in Kafka, in the order in which it came (MQTT 5, 4.6)."""
        in_flight, out, version = self._in_flight, self.out, self.version
        while in_flight and in_flight[0].landed:
            publish = in_flight.popleft()
            out += encode.puback(version, publish.packet_id, publish.reason)

    def deliver(self, downlink: Downlink) -> list[Effect]:
        """Send a downlink if the client subscribed to it; count it as dropped where its queue is full."""
        effects: list[Effect] = []
        qos = self.subscriptions.qos(downlink.topic)
        if self.open and not self.closed and qos is not None:
            self.outbox.add(downlink, qos)
            self._send_queued(effects)
        return effects

    def _send_queued(self, effects: list[Effect]) -> None:
        for sent in self.outbox.ready(self.out):
            effects.append(Receipt(sent, 0))

    def freeze(self, frozen: bool) -> None:
        """Take nothing more from the stream (`/hold`); call `proceed` when it is over."""
        self._frozen = frozen
        if frozen and self.held is None:
            self.held = Held.FROZEN

    def check(self, now: float) -> list[Effect]:
        """Look at the clock: has the client been silent for too long?"""
        if self.closed or self.held:
            return []
        silent = now - self._last_seen
        if not self.version:
            return self.end("no CONNECT", None) if silent > CONNECT_SECONDS else []
        if self._keep_alive and silent > self._keep_alive:
            return self.end("keep-alive", Reason.KEEP_ALIVE_TIMEOUT)
        return []

    def end(self, word: str, reason: Reason | None) -> list[Effect]:
        """Close from our side, with a DISCONNECT in MQTT 5."""
        effects: list[Effect] = []
        if not self.closed:
            self._close(reason, word, effects)
        return effects

    def gone(self) -> None:
        """The connection is no more."""
        self.closed = True
        self._give_back_reserved()

    def _close(self, reason: Reason | None, word: str, effects: list[Effect], detail: str = "") -> None:
        if reason is not None:
            if self.open:
                self.out += encode.disconnect(self.version, reason)
            elif reason is Reason.UNSUPPORTED_VERSION:
                self.out += encode.connack(4, reason)
        self.closed = True
        effects.append(Closed(word, detail))

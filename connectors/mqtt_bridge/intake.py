"""From publishes to records in the raw topic, and from Kafka's word back to those who sent them.

Both ways in share it: identity, key, header `tp`, sequence numbers, the hold.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink import Receipt
from connectors.mqtt_bridge.endpoint.reasons import Reason
from connectors.mqtt_bridge.identity import Trust, resolve
from connectors.mqtt_bridge.publish import OVERHEAD, Publish, Source
from tpstream.bus.envelope import Identity, Kind, RawHeader, Refusal, WayIn, pack_raw
from tpstream.bus.partitioner import partition_of
from tpstream.bus.producer import Producer
from tpstream.bus.topics import uplink_raw

ROUTES = 200_000
"""Pairs of login and topic that are remembered; beyond, all are forgotten and begin anew."""

TOPIC = uplink_raw.name


def wall_clock() -> int:
    """Now, in ms since 1970."""
    return time.time_ns() // 1_000_000


class _Route(NamedTuple):
    """What is the same for each publish of one login on one topic."""

    key: bytes
    partition: int
    identity: Identity
    refusal: Refusal
    topic: tuple[str, bytes]


class Intake:
    """Writes the raw topic. One of it per process: the sequence per partition is its own."""

    def __init__(
        self,
        trust: Trust,
        way_in: WayIn,
        partitions: int,
        budget: Budget,
        counts: Counts,
        clock: Callable[[], int] = wall_clock,
    ) -> None:
        self.producer: Producer
        """Set by whoever makes it with `delivered` as its callback."""
        self.incarnation = secrets.randbits(64)
        self._trust = trust
        self._way_in = way_in
        self._way_bits = way_in << 4
        self._partitions = partitions
        self._budget = budget
        self._counts = counts
        self._clock = clock
        self._sequences = [0] * partitions
        self._routes: dict[tuple[str | None, str], _Route] = {}
        self._holding = False
        self._later: list[tuple[Any, ...]] = []

    def publish(self, publish: Publish) -> None:
        """Take a device's publish to Kafka; its source hears when it is there (`Source.landed`)."""
        source = publish.source
        route = self._routes.get((source.login, publish.topic))
        if route is None:
            route = self._route(source.login, publish.topic)
        refusal = route.refusal
        if publish.digest and not refusal:
            refusal = Refusal.SIZE
        kind = Kind.PUBLISH
        if refusal:
            kind = Kind.REFUSED
            self._counts.refused[refusal.name.lower()] += 1
            if refusal is Refusal.IDENTITY:
                publish.reason = Reason.NOT_AUTHORIZED
        partition = route.partition
        sequence = self._sequences[partition] = self._sequences[partition] + 1
        header = pack_raw(
            kind,
            publish.qos | publish.dup << 2 | publish.retained << 3 | self._way_bits,
            route.identity,
            refusal,
            self.incarnation,
            sequence,
            source.number,
            publish.packet_id,
        )
        headers = [route.topic, ("tp", header)]
        if publish.content_type or publish.users or publish.digest:
            headers += _extras(publish)
        self._counts.published += 1
        self._counts.published_bytes += publish.size
        self.producer.add(TOPIC, partition, route.key, publish.payload, headers, self._clock(), publish)

    def _route(self, login: str | None, topic: str) -> _Route:
        resolved = resolve(self._trust, self._way_in, login, topic)
        key = resolved.device.encode()
        route = _Route(
            key,
            partition_of(key, self._partitions),
            resolved.identity,
            resolved.refusal,
            ("topic", resolved.topic.encode()),
        )
        if len(self._routes) >= ROUTES:
            self._routes.clear()
        if len(topic) < 256:
            self._routes[login, topic] = route
        return route

    def connected(self, source: Source, device: str) -> None:
        """A device's connection has begun."""
        self._note(Kind.CONNECTED, source, device, _reason("connected"))

    def disconnected(self, source: Source, device: str, reason: str) -> None:
        """A device's connection has ended."""
        self._note(Kind.DISCONNECTED, source, device, _reason(reason))

    def receipt(self, source: Source, receipt: Receipt) -> None:
        """A downlink was acknowledged, or written to a subscriber of QoS 0 (`Receipt.qos`)."""
        downlink = receipt.downlink
        if downlink.message_id:
            self._counts.receipts += 1
            headers = [("topic", downlink.topic.encode()), ("message_id", downlink.message_id.encode())]
            self._note(Kind.RECEIPT, source, downlink.device, b"", receipt.qos, headers)

    def _note(
        self,
        kind: Kind,
        source: Source,
        device: str,
        value: bytes,
        qos: int = 0,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        identity = Identity.LOGIN if source.login is not None else Identity.TOPIC
        note = (kind, qos, identity, source.number, device.encode(), value, headers or [], self._clock())
        if self._holding:
            self._later.append(note)
        else:
            self._write(*note)

    def _write(
        self,
        kind: Kind,
        qos: int,
        identity: Identity,
        session: int,
        key: bytes,
        value: bytes,
        headers: list[tuple[str, bytes]],
        timestamp: int,
    ) -> None:
        partition = partition_of(key, self._partitions)
        sequence = self._sequences[partition] = self._sequences[partition] + 1
        header = RawHeader(
            kind,
            qos,
            way_in=self._way_in,
            identity=identity,
            incarnation=self.incarnation,
            sequence=sequence,
            session=session,
        ).pack()
        self.producer.add(TOPIC, partition, key, value, [*headers, ("tp", header)], timestamp, None)

    def delivered(self, topic: str, partition: int, tokens: list[Any], offset: int) -> None:
        """Kafka has these records (callback of the producer): acknowledge to each source at once."""
        sources: dict[Source, None] = {}
        freed = 0
        for publish in tokens:
            if publish is not None:
                freed += len(publish.payload) + OVERHEAD
                publish.landed = True
                self._counts.acknowledged += 1
                if publish.qos:
                    sources[publish.source] = None
        self._budget.give_back(freed)
        for source in sources:
            source.landed()
        self._budget.wake()

    def hold(self) -> None:
        """Keep notes of connections until `release`: a life of the topics ends. Publishes must have stopped."""
        self._holding = True

    def release(self) -> None:
        """Write what was kept, and go on."""
        self._holding = False
        later, self._later = self._later, []
        for note in later:
            self._write(*note)


def _reason(text: str) -> bytes:
    return json.dumps({"reason": text}).encode()


def _extras(publish: Publish) -> list[tuple[str, bytes]]:
    extras = []
    if publish.content_type:
        extras.append(("mqtt-content-type", publish.content_type.encode()))
    extras += [(f"mqtt-user-{name}", value.encode()) for name, value in publish.users]
    if publish.digest:
        extras.append(("tp-size", f"{publish.size} {publish.digest}".encode()))
    return extras

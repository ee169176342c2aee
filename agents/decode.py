"""Raw records into what they say: points, answers, receipts, online status, dead letters.

A thin shell over `tpstream.uplink` and `tpstream.lua`. Scripts and registrations are those of
the release in force where the record stands, so that a replay decodes as it was decoded.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from zlib import crc32

import msgspec

from tables.repeats import repeats_table
from tables.status import PARTITION, Status, device_status_table
from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record
from tpstream.bus.envelope import (
    ORIGIN,
    Kind,
    RawHeader,
    Refusal,
    WayIn,
    header,
    raw_fields,
    unpack_origin,
)
from tpstream.bus.position import Position
from tpstream.bus.table_partition import TablePartition
from tpstream.devices.profiles import ScriptRef
from tpstream.errors import TpstreamError
from tpstream.lua.pool import Call, Failed, Outcome
from tpstream.messages import DeadLetter, Device, DeviceStatus, LatePoint, Response, Telemetry
from tpstream.observability import metrics
from tpstream.uplink import repeats, response, telemetry
from tpstream.uplink.dialects import Address, What, address
from tpstream.uplink.hearing import Hearing
from tpstream.uplink.times import Limits
from tpstream.uplink.values import Problem

MAX_DEAD_PAYLOAD = 65_536
"""Bytes of a payload that a dead letter keeps."""

ADDRESSES = 100_000
"""Topics whose meaning is remembered; beyond, all are forgotten and begin anew."""

_PUBLISH = int(Kind.PUBLISH)
_REPLAY = int(WayIn.REPLAY)
_RESPONSES = frozenset({What.COMMAND_RESPONSE, What.ATTRIBUTES_SET_RESPONSE})


class Announced(msgspec.Struct):
    """The value of a configuration record."""

    release: str


class Named:
    """What a topic says, remembered: nearly every message comes on a topic that was seen before."""

    __slots__ = ("address", "crc", "key", "plain", "present", "release", "script")

    def __init__(self, address: Address, topic: bytes) -> None:
        self.address = address
        self.key = address.device.encode()
        """The device's number, as it must be the record's key."""
        self.plain = address.what is What.TELEMETRY and not address.gateway
        """Telemetry of the device itself."""
        self.crc = crc32(topic)
        self.present: object = None
        """`Catalog.present` when the device was known and its script looked up, and for which release."""
        self.release: str | None = None
        self.script: ScriptRef | None = None


class Scripted(NamedTuple):
    """A publish that waits for its script's outcome."""

    address: Address
    call: int
    """Its place among the calls."""


class Repeated:
    """In place of what is to be done with a record: nothing, as it says an earlier one again."""


Step = Address | Scripted | Problem | RawHeader | Repeated
"""What is to be done with a record."""

_REPEATED = Repeated()
_names: dict[bytes, Named] = {}
_made = tuple.__new__


@app.batch_agent(topics.uplink_raw, tables=(device_status_table, repeats_table), name="decode")
async def decode(batch: Batch) -> None:
    """First what needs scripts is gathered and run at once; then all is sent, in the records' order."""
    decoder = _Decoder(batch)
    calls, prepare, finish = decoder.calls, decoder.prepare, decoder.finish
    waiting: list[tuple[Record, Step]] = []
    for record in batch.records:
        step = prepare(record)
        if calls:  # what stands behind a script's call waits for it, too
            waiting.append((record, step))
        else:
            finish(record, step)
    decoder.heard()
    if calls:
        services: Services = batch.services
        outcomes = await services.scripts.run(calls)
        for record, step in waiting:
            finish(record, step, outcomes[step.call] if type(step) is Scripted else None)
    decoder.count()


class _Decoder:
    """One batch's work, in two passes."""

    def __init__(self, batch: Batch) -> None:
        services: Services = batch.services
        settings = services.settings
        self.batch = batch
        self.state: TablePartition[Status] = device_status_table.of(batch)
        limits = repeats.Limits.of(settings)
        self.hearing = Hearing(repeats_table.of(batch), limits)
        self.drop_resent = limits.drop
        self.catalog = services.catalog
        self.present = services.catalog.present
        self.limits = Limits.of(settings)
        self.register = settings.register_on_first_sight
        self.tenant = settings.tenant
        self.calls: list[Call] = []
        self.origins: dict[int, Position] = {}
        """Of replays, by offset."""
        self.points = 0
        self.dead: list[tuple[str, str]] = []
        self.late = 0
        partition = self.state.get(PARTITION)
        first = batch.position(batch.records[0]) if len(batch) else None
        self.release = partition.release_at(first) if partition is not None and first is not None else None

    # First pass: who and what, and the calls of scripts

    def prepare(self, record: Record) -> Step:
        """What is to be done with a record; remembers a new release, a new device, and what repeats are known by."""
        headers = record.headers
        # The bridge writes these two first, in this order.
        if len(headers) > 1 and headers[0][0] == "topic" and headers[1][0] == "tp":
            topic, data = headers[0][1], headers[1][1]
        else:
            topic, data = header(headers, "topic") or b"", header(headers, "tp") or b""
        key = record.key or b""
        named = _names.get(topic)
        if named is None or named.key != key:
            named = _remember(topic)
        packet_id = 0
        if data:
            kind, flags, _, _, incarnation, sequence, session, packet_id = raw_fields(data)
            if self.hearing.retried(record.offset, incarnation, sequence):
                return _REPEATED
            if flags >> 4 == _REPLAY:
                self._replayed(record)
            if kind != _PUBLISH:
                tp = RawHeader.unpack(data)
                if tp.kind is Kind.CONFIGURATION and not self._configure(record, tp.session):
                    return _REPEATED
                return tp
        if named is None:
            return Problem("topic", "no dialect knows this topic")
        device = named.address.device
        if named.key != key:
            return Problem("identity", f"the topic names {device!r}, the record {key.decode(errors='replace')!r}")
        if (
            packet_id
            and self.drop_resent
            and self.hearing.resent(
                record.offset, record.timestamp, device, record.value or b"", named.crc, flags, session, packet_id
            )
        ):
            return _REPEATED
        if named.present is not self.present or named.release != self.release:
            if not self.catalog.known(device):
                if not self._first_seen(device, record):
                    return Problem("identity", f"device {device} is not registered: `tpstream devices add`")
            else:
                named.present, named.release = self.present, self.release
            if named.plain:
                named.script = self.catalog.profile_of(device, self.release).scripts.get("A")
        if not named.plain:
            if named.address.what in _RESPONSES and not named.address.gateway:
                return named.address
            what = "gateways" if named.address.gateway else named.address.what.value
            return Problem("topic", f"{what}: this kind of uplink is not taken yet")
        if named.script is None or not record.value:
            return named.address
        script = named.script
        self.calls.append(Call(script.id, script.source, "decode", record.value, topic.decode()))
        return Scripted(named.address, len(self.calls) - 1)

    def heard(self) -> None:
        """All records are prepared: keep what repeats are known by."""
        if self.batch.records:
            last = self.batch.position(self.batch.records[-1])
            self.hearing.close(last, max([record.timestamp for record in self.batch.records]))

    def _replayed(self, record: Record) -> None:
        data = header(record.headers, ORIGIN)
        if data is not None:
            self.origins[record.offset] = unpack_origin(data)

    def origin(self, record: Record) -> Position:
        """Where a record first arrived."""
        return self.origins.get(record.offset) or self.batch.position(record)

    def _configure(self, record: Record, epoch: int) -> bool:
        """Take over a release; False where a worker announced it that owns the partition no more."""
        position = self.batch.position(record)
        partition = self.state.get(PARTITION) or Status()
        if self.state.seen(PARTITION, position):
            self.release = partition.release_at(position)
            return True
        if partition.superseded(position, epoch):
            return False
        try:
            self.release = msgspec.json.decode(record.value or b"", type=Announced).release
        except msgspec.DecodeError as error:
            raise TpstreamError(f"configuration record at offset {record.offset}: {error}") from None
        self.state.put(PARTITION, partition.with_release(self.release, position, epoch), position)
        return True

    def _first_seen(self, device: str, record: Record) -> bool:
        """Register a device that nobody knows, once, where the setting says so."""
        if not self.register:
            return False
        status = self.state.get(device) or Status()
        if status.announced != self.batch.life:
            value = Device(device, tenant=self.tenant, created_at=record.timestamp, first_seen=True)
            self._send(topics.config_devices, value, device, record)
            self.state.put(device, msgspec.structs.replace(status, announced=self.batch.life))
        return True

    # Second pass: sends, in order

    def finish(self, record: Record, step: Step, outcome: Outcome | None = None) -> None:
        """Do it; `outcome`: of the script's call, where there was one."""
        if type(step) is Address:
            self.publish(record, step, None)
        elif type(step) is Scripted:
            self.publish(record, step.address, outcome)
        elif type(step) is Problem:
            self.dead_letter(record, 0, step)
        elif type(step) is RawHeader:
            self.note(record, step)

    def publish(self, record: Record, where: Address, outcome: Outcome | None) -> None:
        """Send what a publish says."""
        device = where.device
        payload = record.value or b""
        if where.what is not What.TELEMETRY:
            answer = response.decode(payload, device, where.message_id, record.timestamp)
            if isinstance(answer, Problem):
                self.dead_letter(record, 0, answer)
            else:
                self._send(topics.uplink_response, answer, device, record)
            return
        if isinstance(outcome, Failed):
            self.dead_letter(record, 0, Problem(outcome.reason, outcome.detail))
            return
        if outcome is None:
            decoded = telemetry.decode(payload, record.timestamp, self.limits)
        else:
            decoded = telemetry.decode(outcome.value, record.timestamp, self.limits, script=True)
        if decoded.points:
            self.points += len(decoded.points)
            self._send(topics.uplink_telemetry, Telemetry(device, decoded.points), device, record)
        for n, problem in enumerate(decoded.problems):
            self.dead_letter(record, n, problem)
        for n, point in enumerate(decoded.late):
            self.late += 1
            late = LatePoint(device, point.key, point.ts, "retention", point.number, point.text)
            self._send(topics.late, late, device, record, n)

    def note(self, record: Record, tp: RawHeader) -> None:
        """Send what a record says that is no publish."""
        device = (record.key or b"").decode(errors="replace")
        if tp.kind is Kind.TICK or tp.kind is Kind.CONFIGURATION:
            self.batch.control(topics.uplink_telemetry, record, tp.kind)
            self.batch.control(topics.uplink_response, record, tp.kind)
        elif tp.kind is Kind.RECEIPT:
            acknowledged = tp.way_in is WayIn.ENDPOINT and tp.qos > 0
            message_id = (header(record.headers, "message_id") or b"").decode(errors="replace")
            receipt = Response(device, message_id, "receipt" if acknowledged else "sent", ts=record.timestamp)
            self._send(topics.uplink_response, receipt, device, record)
        elif tp.kind is Kind.REFUSED:
            self.dead_letter(record, 0, _refusal(record, tp), stage="bridge")
        else:
            self._connection(device, record, tp)

    def _connection(self, device: str, record: Record, tp: RawHeader) -> None:
        """A connection began or ended; the newest that began owns the device's status."""
        position = self.batch.position(record)
        if self.state.seen(device, position):
            return
        status = self.state.get(device) or Status()
        online = tp.kind is Kind.CONNECTED
        if not online and tp.session != status.session:
            return
        self.state.put(device, msgspec.structs.replace(status, online=online, session=tp.session), position)
        if online != status.online:
            change = DeviceStatus(device, online, record.timestamp, _reason(record.value))
            self._send(topics.device_status, change, device, record)

    def dead_letter(self, record: Record, item: int, problem: Problem, *, stage: str = "decode") -> None:
        """Send a dead letter; `item` tells several of one record apart."""
        origin = _within(self.origin(record), item)
        letter = DeadLetter(
            id=f"{stage}-{origin.identity()}",
            ts=record.timestamp,
            device=(record.key or b"").decode(errors="replace"),
            stage=stage,
            reason=problem.reason,
            topic=(header(record.headers, "topic") or b"").decode(errors="replace"),
            payload=(record.value or b"")[:MAX_DEAD_PAYLOAD],
            detail=problem.detail,
            headers=tuple((name, value or b"") for name, value in record.headers),
            source_life=origin.life.hex(),
            source_partition=origin.partition,
            source_offset=origin.offset,
            source_index=problem.element,
        )
        self._send(topics.dead_letters, letter, letter.device, record, item)
        self.dead.append((stage, problem.reason))

    def _send(self, topic: topics.Topic[Any], value: Any, device: str, record: Record, item: int = 0) -> None:
        """`item` tells several sends of one record apart."""
        batch, offset = self.batch, record.offset
        batch.send(
            topic,
            value,
            key=device,
            position=_made(Position, (batch.life, batch.partition, offset, item)),
            origin=_within(self.origins[offset], item) if offset in self.origins else None,
            timestamp=record.timestamp,
            partition=batch.partition,
        )

    def count(self) -> None:
        """Add to the metrics what this batch found."""
        metrics.POINTS.labels("decode").inc(self.points)
        if self.late:
            metrics.LATE_POINTS.labels("retention").inc(self.late)
        for stage, reason in self.dead:
            metrics.DEAD_LETTERS.labels(stage, reason).inc()
        if self.hearing.retries:
            metrics.REPEATS.labels("bridge").inc(self.hearing.retries)
        if self.hearing.devices:
            metrics.REPEATS.labels("device").inc(self.hearing.devices)


def _remember(topic: bytes) -> Named | None:
    """What a topic says; None where no dialect knows it."""
    where = address(topic.decode(errors="replace"))
    if where is None:
        return None
    named = Named(where, topic)
    if len(_names) >= ADDRESSES:
        _names.clear()
    _names[topic] = named
    return named


def _within(origin: Position, item: int) -> Position:
    """Element number `item` of what arrived there."""
    return origin._replace(item=origin.item + item) if item else origin


def _refusal(record: Record, tp: RawHeader) -> Problem:
    """Why the bridge did not take a publish."""
    if tp.refusal is Refusal.SIZE:
        size, _, digest = (header(record.headers, "tp-size") or b"").decode(errors="replace").partition(" ")
        return Problem("size", f"payload of {size or 'too many'} bytes; kept: its beginning; SHA-256 {digest}")
    if tp.refusal is Refusal.TOPIC:
        return Problem("topic", "no dialect knows this topic")
    return Problem("identity", "the publisher is not who the topic names, or nobody trusted says who it is")


def _reason(value: bytes | None) -> str:
    try:
        return str(msgspec.json.decode(value or b"", type=dict[str, str]).get("reason", ""))
    except msgspec.DecodeError:
        return ""

"""Raw records into what they say: points, answers, receipts, online status, dead letters.

A thin shell over `tpstream.uplink` and `tpstream.lua`. Scripts and registrations are those of
the release in force where the record stands, so that a replay decodes as it was decoded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from tables.status import PARTITION, Status, device_status_table
from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record
from tpstream.bus.envelope import Kind, RawHeader, Refusal, WayIn, header
from tpstream.bus.position import Position
from tpstream.bus.table import TablePartition
from tpstream.errors import TpstreamError
from tpstream.lua.pool import Call, Failed, Outcome
from tpstream.messages import DeadLetter, Device, DeviceStatus, LatePoint, Response, Telemetry
from tpstream.observability import metrics
from tpstream.uplink import response, telemetry
from tpstream.uplink.dialects import Address, What, address
from tpstream.uplink.times import Limits
from tpstream.uplink.values import Problem

MAX_DEAD_PAYLOAD = 65_536
"""Bytes of a payload that a dead letter keeps."""

_PUBLISH = int(Kind.PUBLISH)
_RESPONSES = frozenset({What.COMMAND_RESPONSE, What.ATTRIBUTES_SET_RESPONSE})


class Announced(msgspec.Struct):
    """The value of a configuration record."""

    release: str


class Work(NamedTuple):
    """A publish that is a device's, waiting for its script's outcome, if it has one."""

    record: Record
    address: Address
    call: int | None
    """Its place among the calls."""


@app.batch_agent(topics.uplink_raw, tables=(device_status_table,), name="decode")
async def decode(batch: Batch) -> None:
    """First what needs scripts is gathered and run at once; then all is sent, in the records' order."""
    decoder = _Decoder(batch)
    steps = [decoder.prepare(record) for record in batch]
    services: Services = batch.services
    outcomes = await services.scripts.run(decoder.calls) if decoder.calls else []
    for step, record in zip(steps, batch, strict=True):
        if isinstance(step, Work):
            decoder.publish(step, None if step.call is None else outcomes[step.call])
        elif isinstance(step, Problem):
            decoder.dead_letter(record, 0, step)
        else:
            decoder.note(record, step)
    decoder.count()


class _Decoder:
    """One batch's work, in two passes."""

    def __init__(self, batch: Batch) -> None:
        services: Services = batch.services
        settings = services.settings
        self.batch = batch
        self.state: TablePartition[Status] = device_status_table.of(batch)
        self.catalog = services.catalog
        self.limits = Limits.of(settings)
        self.register = settings.register_on_first_sight
        self.tenant = settings.tenant
        self.calls: list[Call] = []
        self.points = 0
        self.dead: list[tuple[str, str]] = []
        self.late = 0
        partition = self.state.get(PARTITION)
        first = batch.position(batch.records[0]) if len(batch) else None
        self.release = partition.release_at(first) if partition is not None and first is not None else None

    # First pass: who and what, and the calls of scripts

    def prepare(self, record: Record) -> Work | Problem | RawHeader:
        """What is to be done with a record; remembers a new release and a new device."""
        data = header(record.headers, "tp")
        if data is not None and data[1:2] != b"\x01":
            tp = RawHeader.unpack(data)
            if tp.kind is Kind.CONFIGURATION:
                self._configure(record)
            return tp
        device = (record.key or b"").decode(errors="replace")
        topic = (header(record.headers, "topic") or b"").decode(errors="replace")
        named = address(topic)
        if named is None:
            return Problem("topic", "no dialect knows this topic")
        if named.device != device:
            return Problem("identity", f"the topic names {named.device!r}, the record {device!r}")
        if not self.catalog.known(device) and not self._first_seen(device, record):
            return Problem("identity", f"device {device} is not registered: `tpstream devices add`")
        if named.gateway or not (named.what is What.TELEMETRY or named.what in _RESPONSES):
            kind = "gateways" if named.gateway else named.what.value
            return Problem("topic", f"{kind}: this kind of uplink is not taken yet")
        call = None
        if named.what is What.TELEMETRY and record.value:
            script = self.catalog.profile_of(device, self.release).scripts.get("A")
            if script is not None:
                call = len(self.calls)
                self.calls.append(Call(script.id, script.source, "decode", record.value, topic))
        return Work(record, named, call)

    def _configure(self, record: Record) -> None:
        position = self.batch.position(record)
        partition = self.state.get(PARTITION) or Status()
        if self.state.seen(PARTITION, position):
            self.release = partition.release_at(position)
            return
        try:
            self.release = msgspec.json.decode(record.value or b"", type=Announced).release
        except msgspec.DecodeError as error:
            raise TpstreamError(f"configuration record at offset {record.offset}: {error}") from None
        self.state.put(PARTITION, partition.with_release(self.release, position), position)

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

    def publish(self, work: Work, outcome: Outcome | None) -> None:
        """Send what a publish says."""
        record, device = work.record, work.address.device
        payload = record.value or b""
        if work.address.what in _RESPONSES:
            answer = response.decode(payload, device, work.address.message_id, record.timestamp)
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
            self._send(topics.late, late, device, record, self.batch.position(record).at(n))

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
        position = self.batch.position(record).at(item)
        letter = DeadLetter(
            id=f"{stage}-{position.identity()}",
            ts=record.timestamp,
            device=(record.key or b"").decode(errors="replace"),
            stage=stage,
            reason=problem.reason,
            topic=(header(record.headers, "topic") or b"").decode(errors="replace"),
            payload=(record.value or b"")[:MAX_DEAD_PAYLOAD],
            detail=problem.detail,
            headers=tuple((name, value or b"") for name, value in record.headers),
            source_life=position.life.hex(),
            source_partition=position.partition,
            source_offset=position.offset,
            source_index=problem.element,
        )
        self.batch.dead_letter(letter, position)
        self.dead.append((stage, problem.reason))

    def _send(
        self,
        topic: topics.Topic[Any],
        value: Any,
        device: str,
        record: Record,
        position: Position | None = None,
    ) -> None:
        self.batch.send(
            topic,
            value,
            key=device,
            position=position or self.batch.position(record),
            timestamp=record.timestamp,
            partition=self.batch.partition,
        )

    def count(self) -> None:
        """Add to the metrics what this batch found."""
        metrics.POINTS.labels("decode").inc(self.points)
        if self.late:
            metrics.LATE_POINTS.labels("retention").inc(self.late)
        for stage, reason in self.dead:
            metrics.DEAD_LETTERS.labels(stage, reason).inc()


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

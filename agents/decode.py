"""Raw records into what they say: points, answers, receipts, online status, dead letters.

A thin shell over `tpstream.uplink` and `tpstream.lua`. Scripts and registrations are those of
the release in force where the record stands, so that a replay decodes as it was decoded.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from tables.repeats import repeats_table
from tables.status import PARTITION, Status, device_status_table
from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record
from tpstream.bus.envelope import Kind, RawHeader, WayIn, header, raw_fields
from tpstream.bus.table_partition import TablePartition
from tpstream.errors import TpstreamError
from tpstream.lua.pool import Call
from tpstream.messages import Device, DeviceStatus, Response
from tpstream.observability import metrics
from tpstream.uplink import names, repeats, times
from tpstream.uplink.dialects import Address, What
from tpstream.uplink.hearing import Hearing
from tpstream.uplink.names import Named
from tpstream.uplink.results import Results
from tpstream.uplink.values import Problem

_PUBLISH = int(Kind.PUBLISH)
_REPLAY = int(WayIn.REPLAY)
_RESPONSES = frozenset({What.COMMAND_RESPONSE, What.ATTRIBUTES_SET_RESPONSE})


class Announced(msgspec.Struct):
    """The value of a configuration record."""

    release: str


class Scripted(NamedTuple):
    """A publish that waits for its script's outcome."""

    device: str
    call: int
    """Its place among the calls."""


class Repeated:
    """In place of what is to be done with a record: nothing, as it says an earlier one again."""


Step = Named | Address | Scripted | Problem | RawHeader | Repeated
"""What is to be done with a record: telemetry as it is; an answer; telemetry for a script; …"""

_REPEATED = Repeated()


@app.batch_agent(topics.uplink_raw, tables=(device_status_table, repeats_table), name="decode")
async def decode(batch: Batch) -> None:
    """First what needs scripts is gathered and run at once; then all is sent, in the records' order."""
    decoder = _Decoder(batch)
    calls, prepare, finish, telemetry = decoder.calls, decoder.prepare, decoder.finish, decoder.results.telemetry
    waiting: list[tuple[Record, Step]] = []
    for record in batch.records:
        step = prepare(record)
        if calls:  # what stands behind a script's call waits for it, too
            waiting.append((record, step))
        elif type(step) is Named:
            telemetry(record, step.device)
        else:
            finish(record, step)
    decoder.heard()
    if calls:
        services: Services = batch.services
        outcomes = await services.scripts.run(calls)
        for record, step in waiting:
            if type(step) is Scripted:
                telemetry(record, step.device, outcomes[step.call])
            else:
                finish(record, step)
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
        self.retried, self.resent = self.hearing.retried, self.hearing.resent
        self.drop_resent = limits.drop
        self.results = Results(batch, times.Limits.of(settings))
        self.catalog = services.catalog
        self.present = services.catalog.present
        self.register = settings.register_on_first_sight
        self.tenant = settings.tenant
        self.calls: list[Call] = []
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
        packet_id = 0
        if data:
            kind, flags, _, _, incarnation, sequence, session, packet_id = raw_fields(data)
            if self.retried(record.offset, incarnation, sequence):
                return _REPEATED
            if flags >> 4 == _REPLAY:
                self.results.replayed(record)
            if kind != _PUBLISH:
                tp = RawHeader.unpack(data)
                if tp.kind is Kind.CONFIGURATION and not self._configure(record, tp.session):
                    return _REPEATED
                return tp
        named = names.known.get(topic) or names.named(topic)
        if named is None:
            return Problem("topic", "no dialect knows this topic")
        device, key, value = named.device, record.key or b"", record.value or b""
        if named.key != key:
            return Problem("identity", f"the topic names {device!r}, the record {key.decode(errors='replace')!r}")
        if (
            packet_id
            and self.drop_resent
            and self.resent(record.offset, record.timestamp, device, value, named.crc, flags, session, packet_id)
        ):
            return _REPEATED
        if named.present is not self.present or named.release != self.release:
            known = self.catalog.known(device)
            if not known and not self._first_seen(device, record):
                return Problem("identity", f"device {device} is not registered: `tpstream devices add`")
            if named.address is None:
                named.script = self.catalog.profile_of(device, self.release).scripts.get("A")
            if known:  # and its release has been read: else the batch, when it is tried again, is to ask again
                named.present, named.release = self.present, self.release
        where = named.address
        if where is None:
            script = named.script
            if script is None or not value:
                return named
            self.calls.append(Call(script.id, script.source, "decode", value, topic.decode()))
            return Scripted(device, len(self.calls) - 1)
        if where.what in _RESPONSES and not where.gateway:
            return where
        what = "gateways" if where.gateway else where.what.value
        return Problem("topic", f"{what}: this kind of uplink is not taken yet")

    def heard(self) -> None:
        """All records are prepared: keep what repeats are known by."""
        if self.batch.records:
            last = self.batch.position(self.batch.records[-1])
            self.hearing.close(last, max([record.timestamp for record in self.batch.records]))

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
            self.results.send(topics.config_devices, value, device, record)
            self.state.put(device, msgspec.structs.replace(status, announced=self.batch.life))
        return True

    # Second pass: sends, in order

    def finish(self, record: Record, step: Step) -> None:
        """Do what is to be done with a record that waits for no script."""
        if type(step) is Named:
            self.results.telemetry(record, step.device)
        elif type(step) is Address:
            self.results.answer(record, step)
        elif type(step) is Problem:
            self.results.dead_letter(record, step)
        elif type(step) is RawHeader:
            self._note(record, step)

    def _note(self, record: Record, tp: RawHeader) -> None:
        """Send what a record says that is no publish."""
        device = (record.key or b"").decode(errors="replace")
        if tp.kind is Kind.TICK or tp.kind is Kind.CONFIGURATION:
            self.batch.control(topics.uplink_telemetry, record, tp.kind)
            self.batch.control(topics.uplink_response, record, tp.kind)
        elif tp.kind is Kind.RECEIPT:
            acknowledged = tp.way_in is WayIn.ENDPOINT and tp.qos > 0
            message_id = (header(record.headers, "message_id") or b"").decode(errors="replace")
            receipt = Response(device, message_id, "receipt" if acknowledged else "sent", ts=record.timestamp)
            self.results.send(topics.uplink_response, receipt, device, record)
        elif tp.kind is Kind.REFUSED:
            self.results.refused(record, tp)
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
            self.results.send(topics.device_status, change, device, record)

    def count(self) -> None:
        """Add to the metrics what this batch found."""
        self.results.count()
        if self.hearing.retries:
            metrics.REPEATS.labels("bridge").inc(self.hearing.retries)
        if self.hearing.devices:
            metrics.REPEATS.labels("device").inc(self.hearing.devices)


def _reason(value: bytes | None) -> str:
    try:
        return str(msgspec.json.decode(value or b"", type=dict[str, str]).get("reason", ""))
    except msgspec.DecodeError:
        return ""

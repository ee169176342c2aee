"""Commands to devices: encodes them, sends them in order, and follows each to its end.

A thin shell over `tpstream.downlink.life`. Three topics meet in one table: requests, what
devices and bridges say of commands, and devices coming and going. Their order among each
other is not recorded, so each has marks of its own, and a request is told by its id alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tables.commands import PARTITION, commands
from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record, kind_of
from tpstream.bus.envelope import Kind
from tpstream.bus.position import Position
from tpstream.bus.table_partition import TablePartition
from tpstream.downlink.life import Connection, Effect, Event, Passed, Publish, Requested, Unknown, plan
from tpstream.downlink.payload import Limits, attempts_of, expiry_of, json_of, objection, timeout_of, topic_of
from tpstream.downlink.state import DeviceCommands
from tpstream.errors import TpstreamError
from tpstream.lua.pool import Call, Failed
from tpstream.messages import CommandRequest, CommandStatus, DeadLetter, DeviceStatus, Response
from tpstream.observability import metrics

if TYPE_CHECKING:
    from tpstream.settings import Settings

SCRIPT_TYPE = "E"
"""Command down (docs/scripts.md)."""

_SPACE = {topics.uplink_response.name: 1 << 33, topics.device_status.name: 1 << 34}
"""Added to the partition in marks: positions of two topics say nothing about each other."""


@app.batch_agent(
    topics.downlink_command, topics.uplink_response, topics.device_status, tables=(commands,), name="downlink"
)
async def follow_commands(batch: Batch) -> None:
    """Take requests, answers and connections; on every record, ticks included, do what time demands."""
    state = commands.of(batch)
    requests = await _encode(batch, state) if batch.topic is topics.downlink_command else {}
    known = state.get(PARTITION)
    clock = reached = known.clock if known is not None else 0
    for record in batch:
        clock = max(clock, record.timestamp)
        for device in state.due(clock):
            _plan(batch, record, state, device, Passed(), clock)
        if record.value is None or kind_of(record) is not Kind.PUBLISH:
            continue
        if requested := requests.get(record.offset):
            _plan(batch, record, state, requested.request.device, requested, clock)
        elif batch.topic is not topics.downlink_command:
            device, event = _said(batch, record)
            position = batch.position(record)
            mark = position._replace(partition=position.partition + _SPACE[batch.topic.name])
            if not state.seen(device, mark):
                _plan(batch, record, state, device, event, clock, mark)
    if clock > reached:
        state.put(PARTITION, DeviceCommands(clock=clock))


def _plan(
    batch: Batch,
    record: Record,
    state: TablePartition[DeviceCommands],
    device: str,
    event: Event,
    clock: int,
    mark: Position | None = None,
) -> None:
    old = state.get(device)
    planned = plan(old, event, clock)
    if mark is not None or planned.state != old:
        state.put(device, planned.state, mark)
    for effect in planned.effects:
        _do(batch, record, device, effect)


def _do(batch: Batch, record: Record, device: str, effect: Effect) -> None:
    position = batch.position(record)
    match effect:
        case CommandStatus():
            batch.send(
                topics.command_status,
                effect,
                key=device,
                position=position,
                timestamp=record.timestamp,
                partition=batch.partition,
            )
        case Publish():
            batch.send(
                topics.downlink_mqtt,
                effect.payload,
                key=device,
                position=position,
                timestamp=record.timestamp,
                partition=batch.partition,
                headers=(("topic", topic_of(device, effect.id).encode()), ("message_id", effect.id.encode())),
            )
        case Unknown():
            batch.dead_letter(_letter(batch, record, effect.response), position)
            metrics.DEAD_LETTERS.labels("downlink", "response").inc()


def _said(batch: Batch, record: Record) -> tuple[str, Event]:
    """Whom a record is about, and what it says. TpstreamError where it names no device."""
    message: Response | DeviceStatus = batch.topic.decode(record.value or b"")
    if not message.device:
        raise TpstreamError(f"{batch.topic.name}: a record without a device; give it its device number")
    if isinstance(message, DeviceStatus):
        return message.device, Connection(message.online, message.ts)
    return message.device, message


def _letter(batch: Batch, record: Record, response: Response) -> DeadLetter:
    origin = batch.derived(record).origin
    return DeadLetter(
        id=f"downlink-{origin.identity()}",
        ts=record.timestamp,
        device=response.device,
        stage="downlink",
        reason="response",
        topic=batch.topic.name,
        payload=response.text.encode("utf-8", "surrogatepass"),
        detail=f"device {response.device} was sent no command {response.message_id[:50]!r}, or it is long forgotten",
        source_life=origin.life.hex(),
        source_partition=origin.partition,
        source_offset=origin.offset,
        source_index=origin.item,
    )


async def _encode(batch: Batch, state: TablePartition[DeviceCommands]) -> Mapping[int, Requested]:
    """The new requests of a batch with their payloads, by offset; all scripts of a batch run in one call."""
    services: Services = batch.services
    limits = _limits(services.settings)
    ready: dict[int, Requested] = {}
    scripted: list[tuple[int, CommandRequest]] = []
    request: CommandRequest
    for record, request in batch.values():
        if not request.device:
            raise TpstreamError(f"{batch.topic.name}: a command without a device; give it its device number")
        known = state.get(request.device)
        if known is not None and known.knows(request.id):
            continue
        failure = objection(request)
        if not failure and services.catalog.profile_of(request.device).scripts.get(SCRIPT_TYPE):
            scripted.append((record.offset, request))
        else:
            ready[record.offset] = _requested(request, b"" if failure else json_of(request), failure, limits)
    if scripted:
        results = await _by_script(batch, [request for _, request in scripted])
        for (offset, request), (payload, failure) in zip(scripted, results, strict=True):
            ready[offset] = _requested(request, payload, failure, limits)
    return ready


async def _by_script(batch: Batch, requests: Sequence[CommandRequest]) -> list[tuple[bytes, str]]:
    """What each device's script makes of its command: the bytes to send, or why there are none."""
    services: Services = batch.services
    calls = []
    for request in requests:
        script = services.catalog.profile_of(request.device).scripts[SCRIPT_TYPE]
        topic = topic_of(request.device, request.id)
        calls.append(Call(script.id, script.source, entry="encode", msg=json_of(request), topic=topic))
    results = await services.scripts.run(calls)
    return [(b"", f"script: {r.detail}") if isinstance(r, Failed) else (r.value, "") for r in results]


def _requested(request: CommandRequest, payload: bytes, failure: str, limits: Limits) -> Requested:
    return Requested(
        request,
        payload,
        failure,
        timeout_of(request, limits),
        attempts_of(request, limits),
        expiry_of(request, limits),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        round(settings.command_timeout * 1000), settings.command_attempts, round(settings.command_expiry * 1000)
    )

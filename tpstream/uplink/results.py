"""What raw records say, sent on in their order: points, answers, late points and dead letters.

Each goes to the partition of the record's number with the record's position, so that what is
read again says the same again; what came by a replay has the origin that the replay names.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tpstream.bus import topics
from tpstream.bus.batch import Batch, Outgoing, Record
from tpstream.bus.envelope import ORIGIN, RawHeader, Refusal, header, pack_published, unpack_origin
from tpstream.bus.position import Position
from tpstream.lua.pool import Failed, Outcome
from tpstream.messages import DeadLetter, LatePoint, Telemetry
from tpstream.observability import metrics
from tpstream.uplink import response
from tpstream.uplink.dialects import Address
from tpstream.uplink.telemetry import Decoded, decode
from tpstream.uplink.times import Limits
from tpstream.uplink.values import Problem

MAX_DEAD_PAYLOAD = 65_536
"""Bytes of a payload that a dead letter keeps."""

_TELEMETRY = topics.uplink_telemetry.name
_encode = msgspec.json.Encoder().encode
_made = tuple.__new__


class Results:
    """The results of one batch of raw records. `count` when all are sent."""

    def __init__(self, batch: Batch, limits: Limits) -> None:
        """`limits`: what times of points are taken."""
        self.batch = batch
        self.limits = limits
        self._origins: dict[int, Position] = {}
        """Of replays, by offset."""
        self._points = 0
        self._late = 0
        self._dead: list[tuple[str, str]] = []

    def replayed(self, record: Record) -> None:
        """The record came by a replay: what follows from it began where it first arrived."""
        data = header(record.headers, ORIGIN)
        if data is not None:
            self._origins[record.offset] = unpack_origin(data)

    def telemetry(self, record: Record, device: str, outcome: Outcome | None = None) -> None:
        """Send the points of a publish; `outcome`: of the device's script, where it has one."""
        timestamp = record.timestamp
        if outcome is None:
            decoded = decode(record.value or b"", timestamp, self.limits)
        elif isinstance(outcome, Failed):
            self.dead_letter(record, Problem(outcome.reason, outcome.detail))
            return
        else:
            decoded = decode(outcome.value, timestamp, self.limits, True)
        points = decoded.points
        if points:
            self._points += len(points)
            batch, key, said = self.batch, record.key, Telemetry(device, points)
            if self._origins or key is None:
                self.send(topics.uplink_telemetry, said, device, record)
            else:  # what Batch.send does, less what is known here: every message passes, and it is half a µs (measured)
                tp = pack_published(batch.life, batch.partition, record.offset)
                batch.outgoing.append(
                    _made(Outgoing, (_TELEMETRY, batch.partition, key, _encode(said), [("tp", tp)], timestamp))
                )
        if decoded.problems or decoded.late:
            self._rest(record, device, decoded)

    def _rest(self, record: Record, device: str, decoded: Decoded) -> None:
        """Send what of a publish is not to be stored as telemetry."""
        for n, problem in enumerate(decoded.problems):
            self.dead_letter(record, problem, n)
        for n, point in enumerate(decoded.late):
            late = LatePoint(device, point.key, point.ts, "retention", point.number, point.text)
            self.send(topics.late, late, device, record, n)
        self._late += len(decoded.late)

    def answer(self, record: Record, where: Address) -> None:
        """Send a device's answer to a command or attribute set."""
        answer = response.decode(record.value or b"", where.device, where.message_id, record.timestamp)
        if isinstance(answer, Problem):
            self.dead_letter(record, answer)
        else:
            self.send(topics.uplink_response, answer, where.device, record)

    def dead_letter(self, record: Record, problem: Problem, item: int = 0, stage: str = "decode") -> None:
        """Send a dead letter; `item` tells several of one record apart."""
        origin = _within(self._origins.get(record.offset) or self.batch.position(record), item)
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
        self.send(topics.dead_letters, letter, letter.device, record, item)
        self._dead.append((stage, problem.reason))

    def refused(self, record: Record, tp: RawHeader) -> None:
        """Send the dead letter of a publish that the bridge did not take."""
        self.dead_letter(record, _refusal(record, tp), stage="bridge")

    def send(self, topic: topics.Topic[Any], value: Any, device: str, record: Record, item: int = 0) -> None:
        """Send what follows from a record; `item` tells several sends of one record apart."""
        batch, offset = self.batch, record.offset
        origin = self._origins.get(offset)
        batch.send(
            topic,
            value,
            key=device,
            position=_made(Position, (batch.life, batch.partition, offset, item)),
            origin=None if origin is None else _within(origin, item),
            timestamp=record.timestamp,
            partition=batch.partition,
        )

    def count(self) -> None:
        """Add to the metrics what was sent."""
        metrics.POINTS.labels("decode").inc(self._points)
        if self._late:
            metrics.LATE_POINTS.labels("retention").inc(self._late)
        for stage, reason in self._dead:
            metrics.DEAD_LETTERS.labels(stage, reason).inc()


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

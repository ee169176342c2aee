"""Which raw records only say again what an earlier one has said (docs/decode.md, Repeats). Pure.

Two kinds are told apart from new messages, each from a memory that is kept in a table:

- the bridge's own produce retries: a sequence number of the same incarnation that stands
  before it in the same raw partition;
- a device's repeats: DUP set, and session, packet id and fingerprint those of one of its last
  records, if that session has used no packet id twice among them.

A record that is read again after a crash stands at the same offset and is no repeat of itself.
A memory may know more than was committed; so each also keeps which offsets it took for
repeats, and says of what it has folded the same as the first time. Where a repeat cannot be
told from a new message, it is none: a doubled reading is the lesser harm.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

import msgspec

from tpstream.settings import Settings

INCARNATIONS = 256
"""Incarnations of bridges that a partition remembers; of more, those that spoke last."""

FORGET_MS = 24 * 3_600_000
"""By the partition's clock, ms: a bridge or device that was silent in it for so long is forgotten."""

LATE_MS = 3_600_000
"""How far behind the partition's clock a record's delivery may be, ms, as bridges' clocks differ. So long
beyond the time in which repeats are looked for a device is remembered, also where that is set to days."""

SESSIONS = 256
"""Sessions with brokers whose newest packet id a partition remembers."""

KEPT_DROPS = 1_024
"""Runs of dropped offsets that are remembered for records that are read again."""

REREAD = 1_000_000
"""Offsets; so far behind what is folded nothing is read again."""

SLACK = 2
"""Records beyond the limit that may stay, so that not every one more moves all others. A memory of the
default limit is within the 512 bytes for which Python has an allocator of its own."""

_RECORD = Struct("<IHII")
"""Session and DUP, packet id, fingerprint, seconds since 1970."""

_SIZE = _RECORD.size
pack = _RECORD.pack

Runs = tuple[tuple[int, int], ...]
"""Offsets as runs (first, last), ascending."""


class Incarnation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a partition has heard of one bridge process."""

    number: int
    sequence: int
    """The highest."""
    clock: int
    """The partition's, ms, when it was heard last."""


class Heard(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The memory of a device; or, of the partition itself, what it has heard of bridges and brokers."""

    records: bytes = b""
    """A device's last records of QoS 1, the oldest first, packed."""
    dropped: Runs = ()
    """What was taken for a repeat."""
    incarnations: tuple[Incarnation, ...] = ()
    sessions: tuple[tuple[int, int], ...] = ()
    """Sessions with brokers, and the newest packet id of each."""
    clock: int = 0
    """The partition's: the highest delivery time in it, ms. Of a device: before it, it is not to be forgotten."""


NOTHING = Heard()


def heard_at(heard: Heard) -> int:
    """The delivery of a device's last record, ms, in whole seconds."""
    return int.from_bytes(heard.records[-4:], "little") * 1000


def due(heard: Heard) -> int | None:
    """The partition's clock at which it is to be seen whether a device can be forgotten; of the partition: None."""
    return max(heard_at(heard) + FORGET_MS, heard.clock) if heard.records else None


class Limits(NamedTuple):
    """What a device's repeats are looked for in."""

    drop: bool = True
    records: int = 32
    seconds: int = 3_600
    snapshot_seconds: int = 60
    """Behind a broker DUP is not required within this age."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings say."""
        return cls(
            settings.mqtt_repeats == "drop",
            settings.mqtt_repeats_records,
            settings.mqtt_repeats_seconds,
            settings.broker_snapshot_seconds,
        )


# A device's records


def forgotten_from(heard: Heard, limits: Limits) -> int:
    """The partition's clock from which on nothing can be a repeat of what a device has said, ms."""
    return heard_at(heard) + limits.seconds * 1000 + LATE_MS


def full(limits: Limits) -> int:
    """Bytes of a memory at which old records leave it."""
    return (limits.records + SLACK) * _SIZE


def kept(limits: Limits) -> int:
    """Bytes at the end of a memory in which repeats are looked for."""
    return limits.records * _SIZE


def with_record(records: bytes, tag: int, packet_id: int, fingerprint: int, ms: int, limits: Limits) -> bytes:
    """The memory with one record more; of the older ones at least those stay that are looked at.

    `tag`: 31 bits of its session (it is random: enough to tell so few apart), and DUP.
    """
    if len(records) >= full(limits):
        records = records[-kept(limits) :]
    return records + pack(tag, packet_id, fingerprint, ms // 1000 & 0xFFFF_FFFF)


def is_repeat(
    records: bytes, tag: int, packet_id: int, fingerprint: int, ms: int, limits: Limits, *, behind: bool
) -> bool:
    """Whether a record repeats one of the last of these.

    `tag`: as in `with_record`. `behind`: its broker has gone back to an earlier packet id, as one does that
    has forgotten what was acknowledged, so DUP is not required.
    Only what did not itself claim to be a repeat is repeated: a device that sets DUP on
    everything is not to be believed.
    """
    seconds = ms // 1000
    session = tag >> 1
    since = seconds - (limits.seconds if tag & 1 else limits.snapshot_seconds)
    used: set[int] = set()
    found = False
    for other, other_id, print_, at in _RECORD.iter_unpack(records[-kept(limits) :]):
        if other >> 1 != session or at < seconds - limits.seconds:
            continue
        if other_id in used:
            return False
        used.add(other_id)
        found |= other_id == packet_id and print_ == fingerprint and not other & 1 and at >= since
    return found and (bool(tag & 1) or behind)


def is_behind(packet_id: int, newest: int) -> bool:
    """Whether a broker's packet id is not beyond the newest: ids run to 65,535 and begin anew (RFC 1982).

    So nothing new is taken for a repeat while a broker goes on counting, however fast.
    """
    return (newest - packet_id) & 0xFFFF < 0x8000


# Offsets that were dropped


def with_offset(dropped: Runs, offset: int) -> Runs:
    """One more, above all others; what is too old is forgotten."""
    if dropped and dropped[-1][1] == offset - 1:
        return (*dropped[:-1], (dropped[-1][0], offset))
    runs = dropped[-KEPT_DROPS + 1 :]
    if runs and runs[0][1] < offset - REREAD:
        runs = tuple(run for run in runs if run[1] >= offset - REREAD)
    return (*runs, (offset, offset))


def was_dropped(dropped: Runs, offset: int) -> bool:
    """Whether an offset that was folded was taken for a repeat."""
    return any(first <= offset <= last for first, last in dropped)


class PartitionMemory:
    """A partition's memory, opened for one batch. `closed` is what is to be kept."""

    __slots__ = ("_before", "clock", "dropped", "folded", "retries", "sequences", "sessions")

    def __init__(self, heard: Heard, folded: int) -> None:
        """`folded`: the offset up to which it is folded; -1: nothing of this life is."""
        self._before = heard if folded >= 0 else NOTHING  # offsets of another life mean nothing
        self.folded = folded
        self.sequences = {one.number: one.sequence for one in self._before.incarnations}
        """The highest of each incarnation, 0 being nobody's."""
        self.sessions = dict(self._before.sessions)
        self.dropped = self._before.dropped
        self.clock = self._before.clock
        self.retries = 0
        """How many records were produced again."""

    def retried(self, offset: int, incarnation: int, sequence: int) -> bool:
        """Whether the bridge produced this again. Remembers it.

        One batch is in flight per partition, so what stands below the highest stood there before.
        """
        if offset <= self.folded:
            return was_dropped(self.dropped, offset)
        if sequence > self.sequences.get(incarnation, 0):
            if incarnation:
                self.sequences[incarnation] = sequence
            return False
        if not incarnation or not sequence:
            return False  # of somebody who does not count
        self.drop(offset)
        self.retries += 1
        return True

    def drop(self, offset: int) -> None:
        """Remember that what stands there was taken for a repeat."""
        if offset > self.folded:
            self.dropped = with_offset(self.dropped, offset)

    def advance(self, session: int, packet_id: int) -> bool:
        """Take a packet id of a broker's session in; whether it is behind the newest."""
        newest = self.sessions.get(session)
        if newest is not None and is_behind(packet_id, newest):
            return True
        self.sessions[session] = packet_id
        return False

    def closed(self, clock: int) -> Heard:
        """The memory after the batch; `clock`: the highest delivery time in it, ms."""
        clock = max(clock, self.clock)
        before = {one.number: one for one in self._before.incarnations}
        incarnations = []
        for number, sequence in self.sequences.items():
            known = before.get(number)
            if known is None or known.sequence != sequence:
                incarnations.append(Incarnation(number, sequence, clock))
            elif known.clock > clock - FORGET_MS:
                incarnations.append(known)
        if len(incarnations) > INCARNATIONS:
            incarnations = sorted(incarnations, key=lambda one: one.clock)[-INCARNATIONS:]
        sessions = tuple(self.sessions.items())[-SESSIONS:]
        return Heard(b"", self.dropped, tuple(incarnations), sessions, clock)

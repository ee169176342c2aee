"""Repeats against a reference that remembers everything, and against crashes at any point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpstream.bus.position import Life, Position
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.testing import LIFE
from tpstream.uplink.hearing import PARTITION, Hearing
from tpstream.uplink.repeats import (
    FORGET_MS,
    INCARNATIONS,
    KEPT_DROPS,
    LATE_MS,
    NOTHING,
    REREAD,
    Heard,
    Limits,
    PartitionMemory,
    due,
    was_dropped,
    with_offset,
)

NOW = 1_700_000_000_000
ENDPOINT, BROKER, OWNER, REPLAY = 0, 1 << 4, 2 << 4, 3 << 4
QOS1, DUP = 1, 4
LIMITS = Limits()


class Raw(NamedTuple):
    """A record of a raw partition, as far as repeats go; its place in a list is its offset."""

    device: str = "d1"
    value: bytes = b"21.5"
    flags: int = QOS1
    incarnation: int = 7
    sequence: int = 0
    session: int = 1
    packet_id: int = 0
    at: int = 0
    """Seconds after NOW."""


def partition(life: Life = LIFE) -> TablePartition[Heard]:
    return TablePartition(Table("repeats", Heard, due=due), 0, life)


def hear(
    table: TablePartition[Heard], records: Sequence[Raw], first: int = 0, limits: Limits = LIMITS, life: Life = LIFE
) -> list[bool]:
    """One batch; which of its records are repeats."""
    hearing = Hearing(table, limits)
    found = []
    for offset, raw in enumerate(records, first):
        again = hearing.retried(offset, raw.incarnation, raw.sequence)
        if not again and raw.packet_id:
            ms = NOW + raw.at * 1000
            again = hearing.resent(
                offset, ms, raw.device, raw.value, crc32(b"t"), raw.flags, raw.session, raw.packet_id
            )
        found.append(again)
    if records:
        hearing.close(Position(life, 0, first + len(records) - 1), max(NOW + raw.at * 1000 for raw in records))
    table.accept()
    return found


def dropped(*records: Raw, limits: Limits = LIMITS) -> list[int]:
    """The places of the repeats among records that nobody has heard before."""
    return [place for place, again in enumerate(hear(partition(), records, limits=limits)) if again]


def test_a_batch_that_the_bridge_produced_again_is_known_by_its_sequence():
    first, again = [Raw(sequence=n) for n in (1, 2, 3)], [Raw(sequence=n) for n in (2, 3)]
    other = [Raw(incarnation=8, sequence=n) for n in (1, 2)]
    assert dropped(*first, *other, *again, Raw(sequence=4), *other) == [5, 6, 8, 9]


def test_who_does_not_count_loses_nothing():
    assert dropped(*[Raw(incarnation=0, sequence=0)] * 3, *[Raw(incarnation=0, sequence=5)] * 3) == []
    assert dropped(*[Raw(incarnation=9, sequence=0)] * 3) == []


FIRST = Raw(packet_id=5)
AGAIN = FIRST._replace(flags=QOS1 | DUP)


@pytest.mark.parametrize(
    ("records", "repeats"),
    [
        ([FIRST, AGAIN], [1]),
        ([FIRST, AGAIN, AGAIN], [1, 2]),
        ([FIRST, FIRST], []),
        ([AGAIN], []),
        ([FIRST, AGAIN._replace(session=2)], []),
        ([FIRST, AGAIN._replace(packet_id=6)], []),
        ([FIRST, AGAIN._replace(value=b"21.6")], []),
        ([FIRST, AGAIN._replace(device="d2")], []),
        ([FIRST, AGAIN._replace(at=3600)], [1]),
        ([FIRST, AGAIN._replace(at=3601)], []),
        ([FIRST, AGAIN._replace(at=-5)], [1]),
        # a session that has used a packet id twice: nothing of it can be told
        ([FIRST, FIRST, AGAIN], []),
        ([FIRST, Raw(packet_id=6), Raw(packet_id=6), AGAIN], []),
        ([FIRST, Raw(packet_id=5, session=2), AGAIN], [2]),
        # among the last 32 of the device
        ([FIRST, *(Raw(packet_id=n) for n in range(100, 131)), AGAIN], [32]),
        ([FIRST, *(Raw(packet_id=n) for n in range(100, 132)), AGAIN], []),
        # others' records are not its own
        ([FIRST, *(Raw(packet_id=n, device="d2") for n in range(100, 200)), AGAIN], [101]),
        # a device that claims to repeat whatever it says
        ([AGAIN, AGAIN, AGAIN], []),
        # what a replay or an owner writes is none of a device's
        ([FIRST, AGAIN._replace(flags=QOS1 | DUP | REPLAY)], []),
        ([FIRST, AGAIN._replace(flags=QOS1 | DUP | OWNER)], []),
    ],
)
def test_what_a_device_sends_again(records: list[Raw], repeats: list[int]):
    assert dropped(*records) == repeats


@pytest.mark.parametrize("dup", [0, DUP])
def test_a_device_with_one_packet_id_for_everything_loses_nothing(dup: int):
    assert dropped(*[Raw(packet_id=1, flags=QOS1 | dup)] * 100) == []


def test_limits_are_settings():
    three = [FIRST, Raw(packet_id=6), Raw(packet_id=7)]
    assert dropped(*three, AGAIN, limits=Limits(records=3)) == [3]
    assert dropped(*three, AGAIN, limits=Limits(records=2)) == []
    assert dropped(FIRST, AGAIN._replace(at=11), limits=Limits(seconds=10)) == []


IDS = [Raw(packet_id=n, flags=QOS1 | BROKER) for n in (65534, 65535, 1, 2)]


def test_a_broker_that_was_killed_goes_back_and_repeats_without_dup():
    assert dropped(*IDS, *IDS[2:]) == [4, 5]
    assert dropped(*IDS, *IDS[:2]) == [4, 5], "also over the end of the packet ids"
    assert dropped(*IDS, *(raw._replace(at=61) for raw in IDS[2:])) == [], "its snapshot is older than the setting"
    assert dropped(*IDS, IDS[3]._replace(value=b"new")) == [], "it gives its ids to others now"
    assert dropped(*IDS, *IDS[2:], limits=Limits(snapshot_seconds=0)) == []


def test_a_broker_that_counts_on_through_all_packet_ids_loses_nothing():
    """At 2,000 messages a second ids come round within the age of a snapshot; a heartbeat looks the same each time."""
    others = [Raw("d2", b"%d" % n, QOS1 | BROKER, packet_id=n) for n in range(10_000, 65_535, 10_000)]
    heartbeat = Raw(packet_id=1, flags=QOS1 | BROKER)
    assert dropped(heartbeat, *others, heartbeat._replace(at=33)) == []


# Against a reference that remembers everything


def reference(records: Sequence[Raw], limits: Limits = LIMITS) -> list[bool]:
    """The rule, read out: over all that was ever said."""
    sequences: set[tuple[int, int]] = set()
    newest: dict[int, int] = {}
    kept: dict[str, list[Raw]] = {}
    found = []
    for raw in records:
        again = raw.incarnation > 0 and raw.sequence > 0 and (raw.incarnation, raw.sequence) in sequences
        sequences.add((raw.incarnation, raw.sequence))
        if not again and raw.packet_id:
            behind = False
            if raw.flags & BROKER:
                known = newest.get(raw.session, raw.packet_id - 1)
                behind = 0 <= (known - raw.packet_id) % 65_536 < 32_768
                newest[raw.session] = known if behind else raw.packet_id
            last = kept.setdefault(raw.device, [])
            mine = [r for r in last[-limits.records :] if r.session == raw.session and r.at >= raw.at - limits.seconds]
            unique = len({r.packet_id for r in mine}) == len(mine)
            same = [r for r in mine if (r.packet_id, r.value) == (raw.packet_id, raw.value) and not r.flags & DUP]
            young = any(r.at >= raw.at - limits.snapshot_seconds for r in same)
            again = unique and bool(same) and (bool(raw.flags & DUP) or (behind and young))
            if not again:
                last.append(raw)
        found.append(again)
    return found


published = st.builds(
    Raw,
    device=st.sampled_from(["d1", "d2", "d3"]),
    value=st.sampled_from([b"a", b"b"]),
    flags=st.sampled_from([QOS1, QOS1 | DUP, QOS1 | BROKER, QOS1 | DUP | BROKER]),
    incarnation=st.sampled_from([0, 7, 8]),
    session=st.sampled_from([1, 2]),
    packet_id=st.sampled_from([0, 1, 2, 3, 30_000, 50_000, 65_535]),
    at=st.integers(0, 40),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Raw]:
    """A raw partition: each bridge counts up, and produces its last batch again, now or when others have spoken."""
    log: list[Raw] = []
    sequences: dict[int, int] = {}
    last: dict[int, list[Raw]] = {}
    for batch in draw(st.lists(st.lists(published, min_size=1, max_size=6), max_size=8)):
        number = batch[0].incarnation
        if draw(st.booleans()) and number in last:
            log += last[number]
            continue
        last[number] = []
        for raw in batch:
            sequences[number] = sequences.get(number, 0) + 1
            last[number].append(raw._replace(incarnation=number, sequence=sequences[number]))
        log += last[number]
    return log


small = Limits(records=4, seconds=20, snapshot_seconds=10)


@settings(max_examples=400, deadline=None)
@given(log=logs(), cuts=st.lists(st.integers(1, 12), max_size=10))
def test_any_log_in_any_batches_is_heard_as_by_one_who_remembers_everything(log: list[Raw], cuts: list[int]):
    table, found = partition(), []
    for size in [*cuts, len(log)]:
        found += hear(table, log[len(found) : len(found) + size], len(found), small)
    assert found == reference(log, small)


@settings(max_examples=400, deadline=None)
@given(log=logs(), sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6), data=st.data())
def test_what_is_read_again_after_a_crash_is_what_it_was(log: list[Raw], sizes: list[int], data: st.DataObject):
    """A crash while a changelog is being written: of each key some version since the last commit is there."""
    expected = reference(log, small)
    table, begin, known = partition(), 0, dict[str, bytes | None]()
    for crash in range(3):
        versions, ends = [known], [begin]
        for size in sizes:
            found = hear(table, log[ends[-1] : ends[-1] + size], ends[-1], small)
            assert found == expected[ends[-1] : ends[-1] + size]
            ends.append(ends[-1] + len(found))
            versions.append({**versions[-1], **dict(table.prepare().items())})
        committed = data.draw(st.integers(0, len(ends) - 1), f"committed before crash {crash}")
        picks = {key: data.draw(st.integers(committed, len(ends) - 1), f"version of {key!r}") for key in versions[-1]}
        known = {key: versions[pick][key] for key, pick in picks.items() if key in versions[pick]}
        table, begin = partition(), ends[committed]
        for key, stored in known.items():
            table.load(key, stored)
    assert hear(table, log[begin:], begin, small) == expected[begin:]


@settings(max_examples=200, deadline=None)
@given(
    windows=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20), st.integers(0, 3)), max_size=10),
    constant=st.booleans(),
)
def test_an_honest_device_is_heard_once_whatever_is_lost(windows: list[tuple[int, int, int]], constant: bool):
    """Each connection sends up to 20 new messages; of what is not acknowledged it repeats some tail, and again."""
    said: list[Raw] = []
    number = 0
    in_flight: list[Raw] = []
    for new, unacknowledged, times in windows:
        for _ in range(times):
            said += [raw._replace(flags=QOS1 | DUP) for raw in in_flight]
        fresh = [
            Raw(packet_id=(number + n) % 65_535 + 1, value=b"v" if constant else b"%d" % (number + n))
            for n in range(new)
        ]
        number += new
        said += fresh
        in_flight = [*in_flight, *fresh][-unacknowledged:][-20:] if unacknowledged else []
        in_flight = [raw for raw in in_flight if raw in fresh]
    found = hear(partition(), said)
    kept = [raw.packet_id for raw, again in zip(said, found, strict=True) if not again]
    assert kept == [n % 65_535 + 1 for n in range(number)]


# What is forgotten


DAY = FORGET_MS // 1000
LATE = LATE_MS // 1000


def devices(table: TablePartition[Heard]) -> set[str]:
    """Of whom something is remembered."""
    return {key for key, _ in table.items()} - {PARTITION}


def tick(at: int) -> Raw:
    """What an owner appends where its partition is silent and something is due."""
    return Raw("", b"", OWNER, incarnation=0, at=at)


def checkpoint(table: TablePartition[Heard]) -> dict[str, bytes | None]:
    """What it writes, all of which is durable at once."""
    prepared = table.prepare()
    table.written(prepared)
    return dict(prepared.items())


def test_a_device_that_is_gone_is_forgotten_after_a_day_by_the_partitions_clock():
    table = partition()
    hear(table, [FIRST, Raw(device="d2", packet_id=1, at=LATE)])
    assert set(checkpoint(table)) == {PARTITION, "d1", "d2"}
    hear(table, [tick(DAY - 1)], 2)
    assert table.next_due() == NOW + FORGET_MS
    assert devices(table) == {"d1", "d2"}
    hear(table, [tick(DAY)], 3)
    assert devices(table) == {"d2"}
    values = checkpoint(table)
    assert values.pop("d1", "absent") is None, "a tombstone"
    assert set(values) == {PARTITION}
    hear(table, [tick(DAY + LATE)], 4)
    assert devices(table) == set()
    assert table.next_due() is None, "nothing asks for ticks any more"


def test_a_device_that_speaks_stays_and_one_that_comes_back_is_heard_anew():
    table = partition()
    hear(table, [FIRST])
    hear(table, [Raw(packet_id=6, at=DAY - 1)], 1)
    checkpoint(table)
    hear(table, [tick(DAY + 1)], 2)
    assert devices(table) == {"d1"}
    hear(table, [tick(2 * DAY)], 3)
    assert devices(table) == set()
    back = FIRST._replace(at=2 * DAY + 1)
    assert hear(table, [back, back._replace(flags=QOS1 | DUP)], 4) == [False, True]
    checkpoint(table)
    hear(table, [tick(4 * DAY)], 6)
    assert devices(table) == set()


def test_a_device_is_remembered_for_as_long_as_repeats_are_looked_for():
    table, limits = partition(), Limits(seconds=3 * DAY)
    hear(table, [FIRST], limits=limits)
    checkpoint(table)
    for offset, day in enumerate((1, 2, 3), 1):
        hear(table, [tick(day * DAY)], offset, limits)
        checkpoint(table)
    assert table.next_due() == NOW + 3 * FORGET_MS + LATE_MS
    assert hear(table, [AGAIN._replace(at=3 * DAY)], 4, limits) == [True]
    hear(table, [tick(3 * DAY + LATE)], 5, limits)
    assert devices(table) == {"d1"}, "written since the last checkpoint"
    checkpoint(table)
    hear(table, [tick(3 * DAY + 2 * LATE)], 6, limits)
    assert devices(table) == set()


def test_a_tick_that_is_read_again_changes_nothing():
    table = partition()
    hear(table, [FIRST])
    checkpoint(table)
    hear(table, [tick(DAY)], 1)
    hear(table, [Raw(packet_id=5, at=DAY + 1)], 2)
    checkpoint(table)
    hear(table, [tick(DAY)], 1)
    assert checkpoint(table) == {}
    assert hear(table, [AGAIN._replace(at=DAY + 2)], 3) == [True]


def test_what_a_failed_batch_has_forgotten_is_forgotten_by_the_next():
    table = partition()
    hear(table, [FIRST])
    checkpoint(table)
    hearing = Hearing(table, LIMITS)
    hearing.close(Position(LIFE, 0, 1), NOW + FORGET_MS)
    assert devices(table) == set()
    table.undo()
    assert devices(table) == {"d1"}
    hear(table, [tick(DAY)], 1)
    assert devices(table) == set()


@settings(max_examples=400, deadline=None)
@given(log=logs(), sizes=st.lists(st.integers(1, 4), min_size=1, max_size=8), data=st.data())
def test_forgetting_is_heard_by_nobody_also_over_crashes(log: list[Raw], sizes: list[int], data: st.DataObject):
    """Days pass between records. A crash leaves what a changelog has got: some beginning of what was written."""
    days = 0
    for place, raw in enumerate(log):
        days += data.draw(st.sampled_from([0, 0, 0, 1, 2]), f"days before {place}")
        log[place] = raw._replace(at=raw.at + days * DAY, incarnation=0)  # bridges are forgotten in a day, too
    expected = reference(log, small)
    table, begin, changelog = partition(), 0, dict[str, bytes | None]()
    for crash in range(3):
        end, uncommitted = begin, list[tuple[str, bytes | None]]()
        for size in sizes:
            found = hear(table, log[end : end + size], end, small)
            assert found == expected[end : end + size]
            end += len(found)
            if data.draw(st.booleans(), f"checkpoint at {end}"):
                changelog |= checkpoint(table)
                begin = end
        uncommitted += table.prepare().items()
        changelog |= uncommitted[: data.draw(st.integers(0, len(uncommitted)), f"written before crash {crash}")]
        table = partition()
        for key, stored in changelog.items():
            table.load(key, stored)
    assert hear(table, log[begin:], begin, small) == expected[begin:]


# Bounds


def test_another_life_begins_to_listen_anew():
    table = partition()
    hear(table, [Raw(sequence=1, packet_id=5)])
    (key, data), (own, theirs) = sorted(table.prepare().items())
    assert (key, own) == (PARTITION, "d1")
    later = partition(Life(b"2" * 16))
    later.load(PARTITION, data)
    later.load("d1", theirs)
    assert hear(later, [Raw(sequence=1, packet_id=5, flags=QOS1 | DUP)], life=Life(b"2" * 16)) == [False]


def test_a_bridge_that_was_silent_for_a_day_is_forgotten():
    memory = PartitionMemory(NOTHING, 0)
    assert not memory.retried(1, 7, 1)
    assert not memory.retried(2, 8, 1)
    heard = memory.closed(NOW)
    memory = PartitionMemory(heard, 2)
    assert not memory.retried(3, 8, 2)
    heard = memory.closed(NOW + FORGET_MS)
    assert [one.number for one in heard.incarnations] == [8]


def test_incarnations_are_bounded_and_the_silent_ones_go():
    heard = NOTHING
    for n in range(1, 2 * INCARNATIONS):
        memory = PartitionMemory(heard, n - 1)
        memory.retried(n, n, 1)
        heard = memory.closed(NOW + n)
    assert [one.number for one in heard.incarnations] == list(range(INCARNATIONS, 2 * INCARNATIONS))


def test_dropped_offsets_are_runs_bounded_in_number_and_age():
    runs = ()
    for offset in (5, 6, 7, 9):
        runs = with_offset(runs, offset)
    assert runs == ((5, 7), (9, 9))
    assert [was_dropped(runs, offset) for offset in range(4, 11)] == [False, True, True, True, False, True, False]
    for offset in range(10, 10 + 4 * KEPT_DROPS, 2):
        runs = with_offset(runs, offset)
    assert len(runs) == KEPT_DROPS
    assert with_offset(runs, 2 * REREAD) == ((2 * REREAD, 2 * REREAD),)


def test_a_devices_memory_is_bounded():
    table = partition()
    hear(table, [Raw(packet_id=n % 65_535 + 1) for n in range(10_000)])
    assert len(table["d1"].records) <= 512 - 33

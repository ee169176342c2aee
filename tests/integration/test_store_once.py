"""What a reader sees is once, whatever happens to the inserts; each test holds the store against a naive model.

The model is a dict by the identity of a point; the first to arrive stays in it. It is fed with
all that any writer ever tried to insert, in whatever order.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parts.cut import Cut

from tpstream.errors import Unavailable
from tpstream.messages import CommandState, CommandStatus, Point, Telemetry, WindowResult
from tpstream.storage import columns
from tpstream.storage.native import Block
from tpstream.storage.reader import Reader
from tpstream.storage.sinks import Store
from tpstream.testing import LIFE, Position

T0 = 1_700_000_000_000
MINUTE, HOUR, MONTH = 60_000, 3_600_000, 31 * 86_400_000


class Arrival(NamedTuple):
    """One point as it arrived: with its value, the delivery and place of its record."""

    ts: int
    value: float
    delivered: int
    offset: int
    ts_from: str = "device"


def unique() -> str:
    return uuid.uuid4().hex[:10]


def rows(device: str, arrivals: Sequence[Arrival]) -> Block:
    messages = [Telemetry(device, (Point("k", a.ts, a.value, ts_from=a.ts_from),)) for a in arrivals]
    return columns.telemetry(messages, [Position(LIFE, 0, a.offset) for a in arrivals], [a.delivered for a in arrivals])


def model(arrivals: Sequence[Arrival]) -> list[Arrival]:
    """What is to be seen of them, by ts and arrival."""
    seen: dict[object, Arrival] = {}
    for a in arrivals:
        identity = a.ts if a.ts_from == "device" else ("delivery", a.offset)
        if identity not in seen or (a.delivered, a.offset) < (seen[identity].delivered, seen[identity].offset):
            seen[identity] = a
    return sorted(seen.values(), key=lambda a: (a.ts, a.delivered, a.offset))


def rolled(points: Sequence[Arrival], size: int) -> dict[int, tuple[int, float, float, float, float, float]]:
    """The roll-up of the model: count, sum, min, max, first, last by start."""
    found: dict[int, list[float]] = {}
    for a in points:
        found.setdefault(a.ts - a.ts % size, []).append(a.value)
    return {start: (len(v), sum(v), min(v), max(v), v[0], v[-1]) for start, v in found.items()}


async def check(reader: Reader, device: str, arrivals: Sequence[Arrival]) -> None:
    """Everything that is made of points shows the model's."""
    wanted = model(arrivals)
    got = await reader.query(
        "SELECT ts, number, received_at, source_offset, ts_from FROM telemetry WHERE device = {d:String}"
        " ORDER BY ts, received_at, source_offset",
        {"d": device},
    )
    assert [Arrival(r["ts"], r["number"], r["received_at"], r["source_offset"], r["ts_from"]) for r in got] == wanted
    for table, size in (("telemetry_minute", MINUTE), ("telemetry_hour", HOUR)):
        got = await reader.query(f"SELECT * FROM {table} WHERE device = {{d:String}}", {"d": device})
        assert {r["ts"]: (r["count"], r["sum"], r["min"], r["max"], r["first"], r["last"]) for r in got} == rolled(
            wanted, size
        ), table
    latest = await reader.latest(device)
    newest = max(a.ts for a in wanted)
    first = min((a for a in wanted if a.ts == newest), key=lambda a: (a.delivered, a.offset))
    assert [(r["ts"], r["number"]) for r in latest] == [(newest, first.value)]


@pytest.fixture
async def reader(store):
    opened = Reader(store.settings())
    yield opened
    await opened.close()


def history(months: int, each: int, *, value: float = 1, delivered: int = T0, offset: int = 0) -> list[Arrival]:
    """Points over many table partitions, one message each."""
    return [
        Arrival(m * MONTH + i * 1000, value + i, delivered, offset + m * each + i)
        for m in range(months)
        for i in range(each)
    ]


# Any sequence

POOL = 12
arrivals_in_pool = st.lists(
    st.builds(
        Arrival,
        st.sampled_from([-1, 0, 1, 59_999, 60_000, HOUR, MONTH, 2 * MONTH + 5, T0]),
        st.integers(0, 9).map(float),
        st.integers(T0, T0 + 3),
        st.just(0),
        st.sampled_from(["device", "device", "delivery"]),
    ),
    min_size=1,
    max_size=POOL,
)
# Two writers, either with any stretch of the log, as often as it likes; merges in between.
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([0, 1]), st.integers(0, POOL - 1), st.integers(1, POOL)),
        st.sampled_from(["flush 0", "flush 1", "merge"]),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=arrivals_in_pool, steps=steps)
def test_any_sequence_of_overlapping_inserts_and_merges_shows_what_the_model_shows(store, log, steps):
    log = [a._replace(offset=n) for n, a in enumerate(log)]

    async def play():
        device, reader = unique(), Reader(store.settings())
        writers = [await Store.connect(store.settings()) for _ in range(2)]
        tried: list[Arrival] = []
        for step in steps:
            if step == "merge":
                await writers[0]._client.command("OPTIMIZE TABLE telemetry_rows FINAL")
                await writers[0]._client.command("OPTIMIZE TABLE telemetry_latest_rows FINAL")
            elif isinstance(step, str):
                await writers[int(step[-1])].telemetry.flush()
            else:
                who, start, count = step
                stretch = log[start : start + count]
                tried += stretch
                writers[who].telemetry.add(rows(device, stretch))
        await asyncio.gather(*(writer.telemetry.flush() for writer in writers))
        if tried:
            await check(reader, device, tried)
        for writer in writers:
            await writer.close()
        await reader.close()

    asyncio.run(play())


# Several writers


async def test_two_workers_that_write_the_same_rows_in_turns_are_one(store, reader):
    device, log = unique(), history(months=5, each=200)
    one, two = [await Store.connect(store.settings()) for _ in range(2)]
    for start in range(0, len(log), 50):
        one.telemetry.add(rows(device, log[start : start + 120]))
        two.telemetry.add(rows(device, log[max(0, start - 70) : start + 50]))
        await asyncio.gather(one.telemetry.flush(), two.telemetry.flush())
    await check(reader, device, log)
    await one.close()
    await two.close()


async def test_a_zombie_that_wakes_up_and_inserts_its_old_batches_changes_nothing(store, reader):
    device, log = unique(), history(months=3, each=100)
    late = [Arrival(a.ts, a.value + 1000, T0 + 60_000, 10_000 + n) for n, a in enumerate(log[::3])]
    zombie, successor = [await Store.connect(store.settings()) for _ in range(2)]
    stages = [CommandState.QUEUED, CommandState.SENT, CommandState.SUCCEEDED]
    states = [CommandStatus(device, device, "m", state, T0, T0 + n, n) for n, state in enumerate(stages)]
    window = WindowResult("w", device, "k", 0, 10, "mean", 1.5, 3, T0 + 20)
    # The zombie holds an old batch, and is stopped.
    zombie.telemetry.add(rows(device, log[:250]))
    zombie.commands.add(columns.commands(states[:2], [Position(LIFE, 0, 0)] * 2, [T0] * 2))
    zombie.windows.add(columns.windows([window], [Position(LIFE, 0, 0)], [T0]))
    # Its successor begins at the committed offset, and is further when the other wakes up.
    successor.telemetry.add(rows(device, log + late))
    successor.commands.add(columns.commands(states, [Position(LIFE, 0, 0)] * 3, [T0] * 3))
    successor.windows.add(columns.windows([window], [Position(LIFE, 0, 0)], [T0]))
    for sink in successor.sinks:
        await sink.flush()
    for table in ("telemetry_rows", "telemetry_latest_rows", "commands_rows", "windows_rows"):
        await successor._client.command(f"OPTIMIZE TABLE {table} FINAL")
    before = await reader.query("SELECT * FROM telemetry WHERE device = {d:String} ORDER BY ts", {"d": device})
    for sink in zombie.sinks:
        await sink.flush()
    after = await reader.query("SELECT * FROM telemetry WHERE device = {d:String} ORDER BY ts", {"d": device})
    assert after == before
    await check(reader, device, log + late)
    assert [r["state"] for r in await reader.commands(id=device)] == ["SUCCEEDED"]
    count = await reader.query("SELECT count() AS n FROM windows WHERE device = {d:String}", {"d": device})
    assert count == [{"n": 1}]
    await zombie.close()
    await successor.close()


@pytest.mark.parametrize("order", ["as they arrived", "the later first", "the later first, merged"])
async def test_of_a_history_uploaded_twice_the_first_to_arrive_stays(store, reader, order):
    device = unique()
    first = history(months=4, each=50, value=1, delivered=T0)
    again = history(months=4, each=50, value=500, delivered=T0 + HOUR, offset=1000)
    opened = await Store.connect(store.settings())
    for log in (first, again) if order == "as they arrived" else (again, first):
        opened.telemetry.add(rows(device, log))
        await opened.telemetry.flush()
        if order.endswith("merged"):
            await opened._client.command("OPTIMIZE TABLE telemetry_rows FINAL")
    await check(reader, device, first + again)
    assert {r["number"] for r in await reader.telemetry(device)} <= {a.value for a in first}
    await opened.close()


async def test_roll_ups_take_in_late_history_and_a_replay_at_once(store, reader):
    device = unique()
    live = [Arrival(T0 + i * 10_000, i, T0 + i * 10_000, i) for i in range(100)]
    opened = await Store.connect(store.settings())
    opened.telemetry.add(rows(device, live))
    await opened.telemetry.flush()
    await check(reader, device, live)
    # Points between those, of an hour ago and of a month ago, uploaded after an outage.
    late = [Arrival(T0 + i * 10_000 + back, 50 + i, T0 + HOUR, 1000 + i) for i in range(50) for back in (5_000,)]
    late += [Arrival(T0 - MONTH + i * 1000, i, T0 + HOUR, 2000 + i) for i in range(200)]
    opened.telemetry.add(rows(device, late))
    await opened.telemetry.flush()
    await check(reader, device, live + late)
    # A replay of all of it: the same origins.
    opened.telemetry.add(rows(device, live + late))
    await opened.telemetry.flush()
    await check(reader, device, live + late)
    await opened.close()


# Inserts cut off in the middle


async def test_an_insert_that_reached_some_table_partitions_only_is_repeated_to_once(store, reader):
    """What a store killed between two table partitions of an insert leaves behind, made by hand."""
    device, log = unique(), history(months=6, each=30)
    opened = await Store.connect(store.settings())
    for part in (log[60:90], log[150:]):
        opened.telemetry.add(rows(device, part))
        await opened.telemetry.flush()
    opened.telemetry.add(rows(device, log))
    await opened.telemetry.flush()
    await check(reader, device, log)
    await opened.close()


async def test_a_store_killed_in_inserts_over_many_table_partitions_shows_each_point_once(own_store):
    device, log, tried, cut_off = "d", history(months=60, each=1500), [], 0
    opened, reader = await Store.connect(own_store.settings()), Reader(own_store.settings())
    for attempt in range(5):
        stretch = log[attempt::5]
        tried += stretch
        opened.telemetry.add(rows(device, stretch))
        flushing = asyncio.create_task(opened.telemetry.flush())
        await asyncio.sleep(0.03 + attempt * 0.06)
        cut_off += not flushing.done()
        own_store.stop(signal.SIGKILL)
        await asyncio.gather(flushing, return_exceptions=True)
        own_store.start()
        await opened.telemetry.flush()
        await check(reader, device, tried)
    assert cut_off >= 2, "no kill fell into an insert: the machine is too fast for this test"
    await opened.close()
    await reader.close()


@pytest.mark.parametrize("after", [0, 1, 20_000, 100_000, "answer"])
async def test_a_connection_cut_in_an_insert_is_repeated_to_once(own_store, after):
    """Cut after so many bytes of it, or when it was sent whole and its answer is on the way."""
    device, log = "d", history(months=12, each=500)
    reader = Reader(own_store.settings())
    async with Cut(own_store.port) as cut:
        opened = await Store.connect(own_store.settings(store_port=cut.port))
        for stretch in (log[:4000], log[2000:]):
            opened.telemetry.add(rows(device, stretch))
            cut.arm(after)
            with pytest.raises(Unavailable):
                await opened.telemetry.flush()
            assert opened.telemetry.pending == len(stretch)
            cut.mend()
            await opened.telemetry.flush()
            assert opened.telemetry.pending == 0
        await check(reader, device, log)
        await opened.close()
    await reader.close()


# What reading costs


async def test_a_query_of_a_roll_up_reads_the_hours_that_it_asks_for_and_not_the_history(own_store):
    opened, reader = await Store.connect(own_store.settings(store_rows=100_000)), Reader(own_store.settings())
    opened.telemetry.add(rows("d", [Arrival(T0 + i * 1000, i, T0, i) for i in range(100_000)]))
    opened.telemetry.add(rows("d", [Arrival(T0 - MONTH * 2 + i * 1000, i, T0, 100_000 + i) for i in range(100_000)]))
    await opened.telemetry.flush()
    for table in ("telemetry_minute", "telemetry_hour"):
        plan = await reader.query(
            f"EXPLAIN indexes = 1 SELECT * FROM {table} WHERE device = 'd' AND key = 'k'"
            f" AND ts >= fromUnixTimestamp64Milli({T0 + 95_000_000}, 'UTC')"
        )
        read = [row["explain"].split()[-1] for row in plan if row["explain"].strip().startswith("Granules:")]
        first, last = int(read[0].split("/")[1]), int(read[-1].split("/")[0])
        assert first > 20
        assert last <= 2, table
    await opened.close()
    await reader.close()


async def test_a_month_that_is_left_alone_becomes_one_part(own_store):
    """So FINAL has nothing to do there. With a second in place of the schema's day."""
    opened, reader = await Store.connect(own_store.settings()), Reader(own_store.settings())
    await opened._client.command("ALTER TABLE telemetry_rows MODIFY SETTING min_age_to_force_merge_seconds = 1")
    log = [Arrival(T0 + i * 1000, i, T0, i) for i in range(30)]
    for n in range(0, 30, 10):
        opened.telemetry.add(rows("d", log[n : n + 12]))
        await opened.telemetry.flush()
    parts = "SELECT count() AS n FROM system.parts WHERE active AND table = 'telemetry_rows'"
    async with asyncio.timeout(60):
        while await reader.query(parts) != [{"n": 1}]:
            await asyncio.sleep(0.2)
    await check(reader, "d", log)
    await opened.close()
    await reader.close()

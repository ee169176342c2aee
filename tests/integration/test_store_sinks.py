"""The sinks on the real embedded store: once, first come, whatever is repeated, killed or away."""

import asyncio
import copy
import gc
import itertools
import signal
import uuid

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tpstream.errors import Full, Rejected, TpstreamError, Unavailable
from tpstream.messages import (
    Alarm,
    AlarmState,
    CommandState,
    CommandStatus,
    DeadLetter,
    DeviceStatus,
    Point,
    Telemetry,
    WindowResult,
)
from tpstream.storage import columns
from tpstream.storage.client import connect
from tpstream.storage.reader import Reader
from tpstream.storage.schema import migrate, migrations
from tpstream.storage.sinks import Store
from tpstream.testing import LIFE, Position

T0 = 1_700_000_000_000


def unique() -> str:
    return uuid.uuid4().hex[:10]


@pytest.fixture
async def sinks(store):
    opened = await Store.connect(store.settings())
    yield opened
    await opened.close()


@pytest.fixture
async def reader(store):
    opened = Reader(store.settings())
    yield opened
    await opened.close()


def points(device, *rows):
    """Columns of single points: (ts, value, ts_from, delivered, offset)."""
    messages = [Telemetry(device, (Point("k", ts, float(v), ts_from=ts_from),)) for ts, v, ts_from, _, _ in rows]
    return columns.telemetry(messages, [Position(LIFE, 0, r[4]) for r in rows], [r[3] for r in rows])


async def test_every_order_of_insertion_keeps_the_first_to_arrive(sinks, reader):
    first, second, third = (T0, 1, "device", T0 + 5, 7), (T0, 2, "device", T0 + 5, 8), (T0, 3, "device", T0 + 6, 2)
    devices = []
    for order in itertools.permutations([first, second, third]):
        devices.append(unique())
        for row in order:
            sinks.telemetry.add(points(devices[-1], row))
            await sinks.telemetry.flush()
    for device in devices:
        assert [r["number"] for r in await reader.telemetry(device)] == [1.0]
        assert [r["number"] for r in await reader.latest(device)] == [1.0]
    await reader.query("SELECT 1")
    client = sinks.telemetry._client
    await client.command("OPTIMIZE TABLE telemetry_rows FINAL")
    await client.command("OPTIMIZE TABLE telemetry_latest_rows FINAL")
    for device in devices:
        assert [r["number"] for r in await reader.telemetry(device)] == [1.0]
        assert [r["number"] for r in await reader.latest(device)] == [1.0]


arrivals = st.lists(
    st.tuples(st.integers(T0, T0 + 2), st.just(0), st.sampled_from(["device", "delivery"]), st.integers(T0, T0 + 3)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrived=arrivals, random=st.randoms(use_true_random=False))
def test_any_set_in_any_order_and_cut_is_what_a_list_would_say(store, arrived, random):
    """Model: by device ts the earliest (delivery, offset) stays; stamped at delivery all are kept."""
    rows = [(ts, offset, ts_from, delivered, offset) for offset, (ts, _, ts_from, delivered) in enumerate(arrived)]
    expected = {("delivery", r[1]) for r in rows if r[2] == "delivery"}
    for ts in {r[0] for r in rows if r[2] == "device"}:
        expected.add(("device", min((r[3], r[4]) for r in rows if r[2] == "device" and r[0] == ts)[1]))

    async def play():
        opened, reader, device = await Store.connect(store.settings()), Reader(store.settings()), unique()
        repeated = rows + random.sample(rows, random.randint(0, len(rows)))
        random.shuffle(repeated)
        for row in repeated:
            opened.telemetry.add(points(device, row))
            if random.random() < 0.4:
                await opened.telemetry.flush()
        await opened.telemetry.flush()
        shown = await reader.telemetry(device)
        latest = await reader.latest(device)
        await opened.close()
        await reader.close()
        return shown, latest

    shown, latest = asyncio.run(play())
    assert sorted((r["ts_from"], int(r["number"])) for r in shown) == sorted(expected)
    assert latest[0]["ts"] == max(r["ts"] for r in shown)
    assert latest[0]["number"] in [r["number"] for r in shown if r["ts"] == latest[0]["ts"]]


async def test_two_points_of_one_ts_in_one_message_and_two_stamped_within_a_ms(sinks, reader):
    device = unique()
    twice = Telemetry(device, (Point("k", T0, 1.0), Point("k", T0, 2.0)))
    stamped = Telemetry(device, (Point("s", T0, 1.0, ts_from="delivery"), Point("s", T0, 2.0, ts_from="delivery")))
    sinks.telemetry.add(columns.telemetry([twice, stamped], [Position(LIFE, 0, 1), Position(LIFE, 0, 2)], [T0, T0]))
    await sinks.telemetry.flush()
    assert [r["number"] for r in await reader.telemetry(device, "k")] == [1.0]
    assert [r["number"] for r in await reader.telemetry(device, "s")] == [1.0, 2.0]


async def test_what_is_inserted_again_is_one_row_to_every_reader(sinks, reader):
    tag = unique()
    origin, delivered = [Position(LIFE, 3, 4)], [T0]
    window = WindowResult("w", tag, "k", T0, T0 + 10, "mean", 1.5, 3, T0 + 20)
    alarm = Alarm(tag, "r", tag, "high", AlarmState.ACTIVE, T0, 1)
    command = CommandStatus(tag, tag, "m", CommandState.SENT, T0, T0, 2)
    letter = DeadLetter(tag, T0, tag, "decode", "json", payload=b"\xff")
    status = DeviceStatus(tag, True, T0)
    all_of = [
        (sinks.telemetry, points(tag, (T0, 1, "device", T0, 1), (T0, 1, "delivery", T0, 2))),
        (sinks.windows, columns.windows([window], origin, delivered)),
        (sinks.alarms, columns.alarms([alarm], origin, delivered)),
        (sinks.commands, columns.commands([command], origin, delivered)),
        (sinks.dead_letters, columns.dead_letters([letter], origin, delivered)),
        (sinks.device_status, columns.device_status([status], origin, delivered)),
    ]
    for _ in range(3):
        for sink, rows in all_of:
            sink.add(rows)
            await sink.flush()
            await sink.flush()  # nothing waits: harmless
    for sink, rows in all_of:
        column = "id" if sink.name in ("alarms", "commands", "dead_letters") else "device"
        count = await reader.query(f"SELECT count() AS n FROM {sink.name} WHERE {column} = {{v:String}}", {"v": tag})
        assert count == [{"n": rows.size}], sink.name
        assert sink.pending == 0


async def test_a_rising_version_replaces_in_any_order(sinks, reader):
    tag = unique()
    states = [CommandState.QUEUED, CommandState.SENT, CommandState.SUCCEEDED]
    for version in (1, 2, 0):
        status = CommandStatus(tag, "d", "m", states[version], T0, T0 + version, version)
        sinks.commands.add(columns.commands([status], [Position(LIFE, 0, version)], [T0]))
        await sinks.commands.flush()
    assert [r["state"] for r in await reader.commands(id=tag)] == ["SUCCEEDED"]


async def test_a_history_over_200_table_partitions_is_one_insert(sinks, reader):
    device = unique()
    month = 31 * 86_400_000
    rows = [(i * month, i, "device", T0, i) for i in range(240)]  # 1970 to 1990
    sinks.telemetry.add(points(device, *rows, (4_000_000_000_000, 999, "device", T0, 999)))
    await sinks.telemetry.flush()
    assert len(await reader.telemetry(device, limit=1000)) == 241
    assert (await reader.latest(device))[0]["number"] == 999


async def test_values_come_back_as_they_were(sinks, reader):
    device = unique() + "°\n'\""
    made = (
        Point("", T0, 1.5),
        Point("big", T0, float(2**60), str(2**60 + 1)),
        Point("bool", T0, 1.0, "", "bool"),
        Point("text", T0, None, "héé\0\n", "text"),
        Point("json", T0, None, '{"a":[1,null]}', "json", "delivery"),
    )
    sinks.telemetry.add(columns.telemetry([Telemetry(device, made)], [Position(LIFE, 5, 6)], [T0 + 1]))
    await sinks.telemetry.flush()
    got = await reader.telemetry(device)
    assert {
        (r["key"], r["ts"], r["number"], r["text"], r["kind"], r["ts_from"]) for r in got
    } == {(p.key, p.ts, p.number, p.text, p.kind, p.ts_from) for p in made}  # fmt: skip
    assert {r["received_at"] for r in got} == {T0 + 1}


async def test_readers_of_the_page(sinks, reader):
    tag = unique()
    one = DeadLetter(
        tag, T0 + 10**9, tag, "decode", "json", "devices/telemetry", b"\xff\x00", "broken", source_partition=1
    )
    two = DeadLetter(tag + "b", T0 + 10**9, tag, "decode", "json", payload=b"{")
    sinks.dead_letters.add(columns.dead_letters([one, two], [Position(LIFE, 0, 0)] * 2, [T0] * 2))
    await sinks.dead_letters.flush()
    letters = {r["id"]: r for r in await reader.dead_letters(10)}
    assert (letters[tag]["payload"], letters[tag]["payload_base64"]) == ("/wA=", True)
    assert (letters[tag + "b"]["payload"], letters[tag + "b"]["payload_base64"]) == ("{", False)
    sinks.telemetry.add(points(tag, *[(T0 + i, i, "device", T0, i) for i in range(10)]))
    sinks.device_status.add(
        columns.device_status([DeviceStatus(tag, o, T0 + n) for n, o in enumerate([True, False])],
                              [Position(LIFE, 0, n) for n in range(2)], [T0, T0])
    )  # fmt: skip
    await sinks.telemetry.flush()
    await sinks.device_status.flush()
    assert [r["ts"] - T0 for r in await reader.telemetry(tag, "k", T0 + 2, T0 + 8, 3)] == [5, 6, 7]
    assert [r["number"] for r in await reader.latest(tag)] == [9.0]
    mine = [r for r in await reader.devices() if r["device"] == tag]
    assert [(r["keys"], r["ts"], r["online"], r["status_at"]) for r in mine] == [(1, T0 + 9, False, T0 + 1)]
    rolled = await reader.query("SELECT * FROM telemetry_minute WHERE device = {d:String}", {"d": tag})
    assert [(r["ts"], r["count"], r["sum"], r["first"], r["last"]) for r in rolled] == [
        (T0 - T0 % 60_000, 10, 45.0, 0.0, 9.0)
    ]
    assert await reader.telemetry("'; DROP TABLE telemetry_rows; --") == []
    with pytest.raises(TpstreamError, match="Syntax error"):
        await reader.query("SELEC 1")


async def test_rows_that_are_refused_are_named_and_the_others_stored(sinks, reader):
    device = unique()
    messages = [Telemetry(device, (Point("k", T0 + i, float(i)), Point("l", T0 + i, float(i)))) for i in range(20)]
    messages[7] = Telemetry(device, (Point("k", T0 + 7, 7.0), Point("l", T0 + 7, 7.0, kind="wrong")))  # in no Enum
    messages[12] = Telemetry(
        device, (Point("k", T0 + 12, None, "\ud800", "text"), Point("l", T0 + 12, 1.0))
    )  # no UTF-8
    for start in range(0, 20, 4):
        origins = [Position(LIFE, 3, i) for i in range(start, start + 4)]
        sinks.telemetry.add(columns.telemetry(messages[start : start + 4], origins, [T0] * 4))
    with pytest.raises(Rejected) as caught:
        await sinks.telemetry.flush()
    found = [
        (r["device"], r["key"], r["ts"] - T0, r["source_partition"], r["source_offset"]) for r in caught.value.rows
    ]
    assert found == [(device, "l", 7, 3, 7), (device, "k", 12, 3, 12)]
    assert len(await reader.telemetry(device)) == 38
    await sinks.telemetry.flush()
    assert sinks.telemetry.pending == 0


async def test_an_insert_of_many_batches_is_one_part_for_each_table_partition(own_store):
    opened = await Store.connect(own_store.settings())
    client = opened.telemetry._client
    await client.command("SYSTEM STOP MERGES telemetry_rows")
    for n in range(200):
        opened.telemetry.add(points("d", (T0 + n, 1, "device", T0, n)))
    await opened.telemetry.flush()
    parts = "SELECT count() FROM system.parts WHERE active AND table = 'telemetry_rows'"
    assert (await client.query(parts)).result_rows == [(1,)]
    await opened.close()


async def test_rows_go_packed_to_a_store_that_is_not_on_this_machine(store, reader):
    opened, device = await Store.connect(store.settings()), unique()
    opened.telemetry._packed = True
    opened.telemetry.add(points(device, *[(T0 + i, i, "device", T0, i) for i in range(1000)]))
    await opened.telemetry.flush()
    assert len(await reader.telemetry(device)) == 1000
    await opened.close()


async def test_what_waits_for_a_store_that_is_away_stays_small(own_store):
    """200,000 rows, twice the bound by default: 10 MB of columns, where lists of objects took ten times that."""
    opened = await Store.connect(own_store.settings(store_rows=100_000))
    own_store.stop(signal.SIGKILL)
    block = points("d", *[(T0 + i, i, "device", T0, i) for i in range(5_000)])
    gc.collect()
    began = psutil.Process().memory_info().rss
    for _ in range(40):
        opened.telemetry.add(copy.deepcopy(block))
    with pytest.raises(Full):
        opened.telemetry.add(block)
    for _ in range(30):
        with pytest.raises(Unavailable):
            await opened.telemetry.flush()
    assert (psutil.Process().memory_info().rss - began) / 1e6 < 50
    await opened.close()


async def test_the_bound_holds(store):
    opened = await Store.connect(store.settings(store_rows=5))
    opened.telemetry.add(points("d", *[(T0, 1, "device", T0, i) for i in range(10)]))
    with pytest.raises(Full):
        opened.telemetry.add(points("d", (T0, 1, "device", T0, 1)))
    await opened.telemetry.flush()
    opened.telemetry.add(points("d", (T0, 1, "device", T0, 1)))
    await opened.close()


async def test_a_store_that_is_away_holds_back_and_loses_nothing(own_store):
    opened = await Store.connect(own_store.settings())
    own_store.stop(signal.SIGKILL)
    opened.telemetry.add(points("d", (T0, 1, "device", T0, 1)))
    for _ in range(2):
        with pytest.raises(Unavailable):
            await opened.telemetry.flush()
    opened.telemetry.add(points("d", (T0 + 1, 2, "device", T0, 2)))
    assert opened.telemetry.pending == 2
    reader = Reader(own_store.settings())
    with pytest.raises(Unavailable):
        await reader.latest()
    own_store.start()
    await opened.telemetry.flush()
    assert [r["number"] for r in await reader.telemetry("d")] == [1.0, 2.0]
    await opened.close()
    await reader.close()


async def test_killed_in_the_middle_of_inserts_then_repeated_is_once(own_store):
    """Six kills at different moments; what was cut off may be there or not, and is repeated either way."""
    opened = await Store.connect(own_store.settings())
    total = 0
    for attempt in range(6):
        rows = [(T0 + total + i, i, "device" if i % 2 else "delivery", T0, total + i) for i in range(30_000)]
        total += len(rows)
        opened.telemetry.add(points("d", *rows))
        flushing = asyncio.create_task(opened.telemetry.flush())
        await asyncio.sleep(0.05 + attempt * 0.03)
        own_store.stop(signal.SIGKILL)
        await asyncio.gather(flushing, return_exceptions=True)
        own_store.start()
        await opened.telemetry.flush()
    reader = Reader(own_store.settings())
    got = await reader.query("SELECT count() AS n, uniqExact(ts) AS u, sum(source_offset) AS s FROM telemetry")
    assert got == [{"n": total, "u": total, "s": total * (total - 1) // 2}]
    assert (await reader.latest("d"))[0]["ts"] == T0 + total - 1
    await opened.close()
    await reader.close()


async def test_connect_waits_for_the_store_and_says_so_once(own_store, caplog):
    own_store.stop()
    waiting = asyncio.create_task(Store.connect(own_store.settings()))
    await asyncio.sleep(1.5)
    assert not waiting.done()
    own_store.start()
    opened = await asyncio.wait_for(waiting, 15)
    assert sum("waiting for" in record.message for record in caplog.records) == 1
    await opened.close()


async def test_a_newer_schema_is_refused_in_one_line(own_store):
    opened = await Store.connect(own_store.settings())
    await opened.close()
    client = await connect(own_store.settings())
    newest = migrations()[-1].version
    assert await migrate(client) == newest  # again: nothing to do
    await client.insert("tpstream_schema", [[newest + 1, "future"]], column_names=["version", "name"])
    with pytest.raises(TpstreamError, match=f"version {newest + 1}, newer .* \\({newest}\\); update tpstream"):
        await Store.connect(own_store.settings())
    await client.close()


async def test_a_migration_cut_off_half_way_is_finished(own_store):
    client = await connect(own_store.settings())
    for statement in migrations()[0].statements[:4]:
        await client.command(statement)
    assert await migrate(client) == migrations()[-1].version
    assert (await client.query("SELECT count() FROM telemetry")).result_rows == [(0,)]
    await client.close()


async def test_a_wrong_user_is_one_line(store):
    with pytest.raises(TpstreamError, match="TPSTREAM_STORE_USER"):
        await Store.connect(store.settings(store_user="eve"))

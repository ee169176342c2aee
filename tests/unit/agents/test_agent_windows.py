"""The windows agent: each window once, whatever the batches and replays; time passes with ticks."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.windows import fold_windows
from tables.windows import PARTITION, windows
from tpstream.app import app
from tpstream.bus import topics
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.position import Position
from tpstream.bus.table_partition import TablePartition
from tpstream.errors import TpstreamError
from tpstream.messages import Point, Telemetry
from tpstream.testing import LIFE, FakeRecord, batch_of, make_batch, sent
from tpstream.windows.definition import window


@pytest.fixture(autouse=True)
def _declared(monkeypatch):
    monkeypatch.setattr(
        app,
        "windows",
        {"mean": window("mean", key="t", size="10ms", idle="30ms"), "top": window("top", key="*", size="7ms")},
    )
    monkeypatch.setattr(windows, "partitions", {})


def record(offset, timestamp, device="d1", *values, kind=Kind.PUBLISH, partition=0, item=0):
    position = Position(LIFE, partition, offset, item)
    told = Telemetry(device, tuple(Point("t", ts, number) for ts, number in values))
    value = topics.uplink_telemetry.encode(told) if kind is Kind.PUBLISH else b"{}"
    return FakeRecord(
        value, offset, timestamp, device.encode(), (("tp", DerivedHeader(kind, position, position).pack()),)
    )


def tick(offset, timestamp):
    return record(offset, timestamp, "", kind=Kind.TICK)


async def handle(*records):
    batch = batch_of(topics.uplink_telemetry, records, tables=[windows])
    await fold_windows(batch)
    windows.at(0).accept()
    return batch


def means(batch):
    return [(r.device, r.start, r.value, r.closed_at) for r in sent(batch, topics.windows) if r.window == "mean"]


async def test_a_closed_window_goes_out_at_the_place_of_the_record_that_closed_it():
    batch = await handle(record(0, 5, "d1", (1, 2.0), (2, 4.0)), record(1, 23, "d1", (22, 9.0)))
    results = sent(batch, topics.windows)
    assert [(r.window, r.device, r.key, r.start, r.end, r.value, r.count) for r in results] == [
        ("top", "d1", "t", 0, 7, 3.0, 2),
        ("mean", "d1", "t", 0, 10, 3.0, 2),
    ]
    headers = [DerivedHeader.unpack(dict(out.headers)["tp"]) for out in batch.outgoing]
    assert [(h.position.offset, h.position.item) for h in headers] == [(1, 0), (1, 1)]
    assert {(out.partition, out.key, out.timestamp) for out in batch.outgoing} == {(0, b"d1", 23)}


async def test_a_tick_closes_the_windows_of_the_silent_and_is_passed_on_behind_them():
    await handle(record(0, 5, "d1", (1, 2.0)), record(1, 20, "d2", (19, 1.0)))
    batch = await handle(tick(2, 40), record(3, 41, "", kind=Kind.CONFIGURATION))
    assert means(batch) == [("d1", 0, 2.0, 40)]
    kinds = [Kind(dict(out.headers)["tp"][1]) for out in batch.outgoing]
    assert kinds[-2:] == [Kind.TICK, Kind.CONFIGURATION]
    assert set(kinds[:-2]) == {Kind.PUBLISH}
    assert all(out.partition == 0 for out in batch.outgoing)


async def test_the_message_that_ends_a_silence_counts():
    await handle(record(0, 5, "d1", (1, 2.0)))
    batch = await handle(record(1, 60, "d1", (55, 8.0)), record(2, 90, "d1", (85, 0.0)))
    assert means(batch) == [("d1", 0, 2.0, 60), ("d1", 50, 8.0, 90)]


async def test_the_clock_is_kept_and_never_goes_back():
    await handle(tick(0, 1000))
    await handle(record(1, 900, "d1", (1, 2.0)))
    batch = await handle(tick(2, 950))
    assert windows.at(0).get(PARTITION).heard == 1000
    assert means(batch) == [], "it was heard when the clock stood there"
    batch = await handle(tick(3, 1100))
    assert means(batch) == [("d1", 0, 2.0, 1100)]


async def test_a_late_point_goes_to_the_late_topic():
    batch = await handle(record(0, 50, "d1", (45, 1.0)), record(1, 51, "d1", (3, 7.0)))
    late = sent(batch, topics.late)
    assert [(p.device, p.ts, p.number, p.reason, p.window) for p in late] == [
        ("d1", 3, 7.0, "window", "mean"),
        ("d1", 3, 7.0, "window", "top"),
    ]


async def test_replayed_input_changes_nothing():
    records = [record(0, 5, "d1", (1, 2.0)), record(1, 6, "d2", (2, 5.0)), record(2, 60, "d1", (58, 1.0))]
    first = await handle(*records)
    assert len(means(first)) == 2
    again = await handle(*records)
    assert again.outgoing == []


async def test_a_message_of_no_device_is_an_error_and_not_the_partitions_clock():
    with pytest.raises(TpstreamError, match="without a device"):
        await handle(record(0, 5, "", (1, 2.0)))


async def test_make_batch_drives_it():
    batch = make_batch(
        topics.uplink_telemetry, [Telemetry("d", (Point("t", 0, 1.0),))], timestamps=[1], tables=[windows]
    )
    await fold_windows(batch)
    assert windows.at(0).get("d") is not None


story = st.lists(
    st.tuples(
        st.integers(0, 25),
        st.sampled_from(["d1", "d2", ""]),  # "": a tick
        st.lists(st.tuples(st.integers(-30, 10), st.integers(0, 9).map(float)), max_size=3),
    ),
    min_size=1,
    max_size=30,
)


def told(steps):
    now, records = 1000, []
    for offset, (gap, device, values) in enumerate(steps):
        now += gap
        if device:
            records.append(record(offset, now, device, *((now + shift, v) for shift, v in values)))
        else:
            records.append(tick(offset, now))
    return records


def results(batches):
    return [r for batch in batches for r in sent(batch, topics.windows)]


@settings(max_examples=150, deadline=None)
@given(story, st.data())
async def test_any_split_in_batches_and_any_replay_give_the_same_windows_each_once(steps, data):
    records = told(steps)
    windows.partitions = {}
    whole = results([await handle(*records)])

    windows.partitions = {}
    batches, at = [], 0
    while at < len(records):
        upto = data.draw(st.integers(at + 1, len(records)))
        batches.append(await handle(*records[at:upto]))
        if data.draw(st.booleans()):
            batches.append(await handle(*records[data.draw(st.integers(0, upto - 1)) : upto]))
        at = upto
    assert results(batches) == whole
    assert len({(r.window, r.device, r.start) for r in whole}) == len(whole)


@settings(max_examples=100, deadline=None)
@given(story, st.data())
async def test_state_that_was_stored_goes_on_as_if_it_had_stayed_in_memory(steps, data):
    records = told(steps)
    cut = data.draw(st.integers(0, len(records)))
    windows.partitions = {}
    whole = results([await handle(*records)])
    windows.partitions = {}
    first = [await handle(*records[:cut])] if cut else []
    stored = dict(windows.at(0).prepare().items()) if cut else {}
    windows.partitions = {0: TablePartition(windows, 0, LIFE)}
    for key, value in stored.items():
        windows.at(0).load(key, value)
    second = [await handle(*records[cut:])] if cut < len(records) else []
    assert results([*first, *second]) == whole

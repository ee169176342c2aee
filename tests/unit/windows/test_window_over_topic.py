"""Windows over a user's own topic: plain JSON, the device in the key, the records' own places."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpstream.app import App
from tpstream.bus import topics
from tpstream.bus.batch import foreign
from tpstream.bus.envelope import DerivedHeader, Kind, RawHeader
from tpstream.bus.position import Position
from tpstream.bus.table_partition import TablePartition
from tpstream.errors import TpstreamError
from tpstream.testing import LIFE, FakeRecord, batch_of, sent


class Reading(msgspec.Struct):
    temperature: float
    ts: int | None = None


class Plant:
    """An application with windows over one topic, and partition 0 of it."""

    def __init__(self, kind=Reading, time="ts", **windows):
        self.app = App()
        self.topic = self.app.topic("plant", kind)
        for name, window in windows.items():
            self.app.window(name, topic=self.topic, time=time, **{"key": "temperature", "size": "10ms", **window})
        self.agent = self.app.agents["windows-plant"]
        (self.table,) = self.agent.tables
        self.stored = {}

    async def handle(self, *records):
        batch = batch_of(self.topic, records, tables=[self.table])
        try:
            await self.agent.handler(batch)
        except BaseException:
            self.table.at(0).undo()
            raise
        self.table.at(0).accept()
        return batch

    def restart(self):
        """Go on with what was stored."""
        self.stored |= dict(self.table.at(0).prepare().items())
        part = self.table.partitions[0] = TablePartition(self.table, 0, LIFE)
        for key, data in self.stored.items():
            part.load(key, data)


def record(offset, timestamp, device="d1", **value):
    return FakeRecord(msgspec.json.encode(value), offset, timestamp, device.encode())


def tick(offset, timestamp):
    return FakeRecord(None, offset, timestamp, b"", (("tp", RawHeader(Kind.TICK).pack()),))


def results(*batches):
    return [
        (r.window, r.device, r.key, r.start, r.value, r.count) for batch in batches for r in sent(batch, topics.windows)
    ]


async def test_the_device_is_the_key_and_the_time_the_field():
    plant = Plant(mean={})
    batch = await plant.handle(
        record(0, 3, temperature=1.0, ts=1),
        record(1, 4, "d2", temperature=50, ts=2),
        record(2, 5, temperature=3, ts=9),
        record(3, 30, temperature=9.0, ts=25),
    )
    assert results(batch) == [("mean", "d1", "temperature", 0, 2.0, 2)]
    (out,) = batch.outgoing
    assert (out.topic, out.partition, out.key, out.timestamp) == ("tp.windows.v1", None, b"d1", 30)
    place = Position(LIFE, foreign("plant", 0), 3)
    assert DerivedHeader.unpack(dict(out.headers)["tp"]) == DerivedHeader(Kind.PUBLISH, place, place)


async def test_without_the_field_the_time_is_the_records():
    for plant in (Plant(mean={}), Plant(time="", mean={})):
        batch = await plant.handle(record(0, 3, temperature=1.0), record(1, 12, temperature=5.0))
        assert results(batch) == [("mean", "d1", "temperature", 0, 1.0, 1)]


async def test_what_is_no_number_moves_the_watermark_only():
    plant = Plant(dict, mean={})
    batch = await plant.handle(
        record(0, 1, temperature=True, ts=1),
        record(1, 2, temperature="hot", ts=2),
        record(2, 3, temperature=10**400, ts=3),
        FakeRecord(None, 3, 4, b"d1"),
        record(4, 12, humidity=1, ts=12),
    )
    assert results(batch) == [("mean", "d1", "temperature", 0, 1.0, 1)]


async def test_several_fields_and_every_field():
    plant = Plant(dict, mean={}, wet={"key": "humidity", "aggregate": "max"}, each={"key": "*", "aggregate": "count"})
    batch = await plant.handle(
        record(0, 1, temperature=1.0, humidity=7, ts=1),
        record(1, 2, temperature=2.0, place="roof"),
        record(2, 10, ts=10),
    )
    assert results(batch) == [
        ("each", "d1", "humidity", 0, 1.0, 1),
        ("each", "d1", "temperature", 0, 2.0, 2),
        ("mean", "d1", "temperature", 0, 1.5, 2),
        ("wet", "d1", "humidity", 0, 7.0, 1),
    ]


async def test_ticks_close_the_windows_of_the_silent():
    plant = Plant(mean={"idle": "30ms"})
    await plant.handle(record(0, 5, temperature=1.0, ts=1))
    assert results(await plant.handle(tick(1, 34))) == []
    batch = await plant.handle(tick(2, 35))
    assert results(batch) == [("mean", "d1", "temperature", 0, 1.0, 1)]
    assert DerivedHeader.unpack(dict(batch.outgoing[0].headers)["tp"]).origin.offset == 2


async def test_the_clock_is_kept_and_never_goes_back():
    plant = Plant(mean={})
    await plant.handle(tick(0, 1000))
    await plant.handle(record(1, 900, temperature=2.0, ts=1))
    batch = await plant.handle(record(2, 950, temperature=2.0, ts=900), tick(3, 960))
    assert [result.closed_at for result in sent(batch, topics.windows)] == [1000]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (FakeRecord(b"{}", 7, 1, b""), "plant-0 offset 7: a record without a key"),
        (FakeRecord(b"{}", 7, 1, None), "plant-0 offset 7: a record without a key"),
        (FakeRecord(b"{}", 7, 1, b"\xff"), "plant-0 offset 7: its key .* is no UTF-8"),
        (FakeRecord(b"[1]", 7, 1, b"d1"), "plant-0 offset 7: Expected `object`, got `array`"),
        (record(7, 1, temperature=1, ts="noon"), r"plant-0 offset 7: Expected `int \| null`, got `str` - at `\$.ts`"),
    ],
)
async def test_a_record_that_cannot_be_folded_is_named_and_leaves_no_trace(bad, said):
    plant = Plant(mean={})
    await plant.handle(record(0, 3, temperature=1.0, ts=1))
    before = plant.table.at(0).get("d1")
    stored = msgspec.msgpack.encode(before)
    with pytest.raises(TpstreamError, match=said):
        await plant.handle(record(1, 4, temperature=2.0, ts=2), bad)
    assert msgspec.msgpack.encode(plant.table.at(0).get("d1")) == stored
    batch = await plant.handle(record(1, 4, temperature=2.0, ts=2), record(8, 20, temperature=2.0, ts=20))
    assert results(batch) == [("mean", "d1", "temperature", 0, 1.5, 2)]


async def test_a_time_that_is_no_number_is_refused_among_many_fields_too():
    plant = Plant(dict, each={"key": "*"})
    with pytest.raises(TpstreamError, match=r"Expected `int \| null` from 0 to 10\^14, got 'noon' - at `\$.ts`"):
        await plant.handle(record(0, 1, temperature=1, ts="noon"))


@pytest.mark.parametrize("ts", [-1, 10**14, (1 << 62) + 1, (1 << 64) - 500, 1 << 70, 1.5])
@pytest.mark.parametrize(("kind", "window"), [(Reading, {}), (dict, {"key": "*"})])
async def test_a_time_beyond_all_times_is_refused_before_it_is_in_the_state(ts, kind, window):
    """A state that holds it could not be stored, and would hold up the checkpoint of the whole worker."""
    plant = Plant(kind, mean=window)
    with pytest.raises(TpstreamError, match=r"plant-0 offset 0: Expected "):
        await plant.handle(record(0, 1, temperature=1.0, ts=ts))
    await plant.handle(record(1, 2, temperature=1.0, ts=10**14 - 1))
    plant.restart()


async def test_a_producer_whose_clock_is_ahead_costs_others_no_more_than_the_windows_then_open():
    plant = Plant(mean={"idle": "60ms", "lateness": "2ms"})
    ahead, sent_ = 3_000, []
    for n in range(100):
        sent_.append(record(len(sent_), n, "good", temperature=1.0, ts=n))
        if n % 5 == 2:
            sent_.append(record(len(sent_), n + ahead, "ahead", temperature=1.0, ts=n + ahead))
    batches = [await plant.handle(one) for one in sent_]
    good = [(r[3], r[5]) for r in results(*batches) if r[1] == "good"]
    assert good == [(0, 3), *((start, 10) for start in range(10, 90, 10))]
    late = [p.ts for batch in batches for p in sent(batch, topics.late) if p.device == "good"]
    assert late == [3, 4, 5, 6, 7, 8, 9]


story = st.lists(
    st.tuples(
        st.integers(0, 25),
        st.sampled_from(["d1", "d2", "d3", ""]),  # "": a tick
        st.integers(-30, 10),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=40,
)


def told(steps):
    now, records = 1000, []
    for offset, (gap, device, shift, value) in enumerate(steps):
        now += gap
        records.append(record(offset, now, device, temperature=value, ts=now + shift) if device else tick(offset, now))
    return records


@settings(max_examples=200, deadline=None)
@given(story, st.data())
async def test_any_batches_crashes_and_replays_give_the_same_windows_each_once(steps, data):
    windows = {
        "mean": {"lateness": "5ms", "idle": "30ms"},
        "slides": {"size": "12ms", "hop": "4ms", "idle": "20ms", "aggregate": "stddevPop"},
    }
    records = told(steps)
    whole = results(await Plant(**windows).handle(*records))
    plant, batches, at = Plant(**windows), [], 0
    while at < len(records):
        upto = data.draw(st.integers(at + 1, len(records)))
        fate = data.draw(st.sampled_from(["goes well", "raises", "is replayed", "restarts"]))
        if fate == "raises":
            with pytest.raises(TpstreamError):
                await plant.handle(*records[at:upto], FakeRecord(b"{", upto, 1, b"d1"))
        batches.append(await plant.handle(*records[at:upto]))
        if fate == "is replayed":
            batches.append(await plant.handle(*records[data.draw(st.integers(0, upto - 1)) : upto]))
        if fate == "restarts" and upto < len(records):
            plant.restart()
        at = upto
    assert results(*batches) == whole
    assert len({(window, device, start) for window, device, _, start, *_ in whole}) == len(whole)

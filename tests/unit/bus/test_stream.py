"""A plain agent on the lane: written as for Faust, acknowledged as a batch agent is."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tpstream.app import App
from tpstream.bus import topics
from tpstream.bus.batch import Outgoing
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.lane import Lane
from tpstream.bus.position import Position
from tpstream.bus.stream import Stream, driven
from tpstream.bus.table import Table
from tpstream.bus.table_partition import TablePartition
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable
from tpstream.settings import Settings
from tpstream.testing import LIFE, FakeRecord, batch_of


class Reading(msgspec.Struct):
    celsius: float


class Count(msgspec.Struct):
    n: int


class Sent:
    """A topic sink that keeps what it is given."""

    name = "topics"
    pending = 0

    def __init__(self) -> None:
        self.rows: list[Outgoing] = []

    def add(self, rows: Any, positions: Any, agent: str = "") -> None:
        self.rows += rows

    async def flush(self) -> None: ...

    async def close(self) -> None: ...

    def letters(self) -> list[Any]:
        return [topics.dead_letters.decode(r.value) for r in self.rows if r.topic == "tp.dlq.v1" and r.value]


class Run:
    """An application's agents on a lane of their own; `plant.readings.v1` and `plant.out.v1` are declared."""

    def __init__(self) -> None:
        self.app = App()
        self.readings = self.app.topic("plant.readings.v1", Reading)
        self.out = self.app.topic("plant.out.v1", Reading)
        self.counts = Table("counts", Count)
        self.sent = Sent()
        self.lane: Lane

    async def __call__(self, *values: bytes, key: bytes = b"oven") -> None:
        """Offer records and return when all are acknowledged."""
        services: Any = SimpleNamespace(settings=Settings.load({}))
        self.counts.partitions[0] = TablePartition(self.counts, 0, LIFE)
        self.lane = Lane(list(self.app.agents.values()), services, self.sent)
        self.lane.assign([(self.readings.name, 0)], LIFE)
        records: Any = [FakeRecord(value, n, 1_000 + n, key) for n, value in enumerate(values)]
        self.lane.offer(self.readings.name, 0, records)
        async with asyncio.timeout(10):
            while self.lane.progress[self.readings.name, 0].acknowledged() < len(values):
                await asyncio.sleep(0.001)
        assert not self.lane.failure
        await self.lane.drain(1.0)

    def outgoing(self) -> list[float]:
        return [msgspec.json.decode(r.value)["celsius"] for r in self.sent.rows if r.topic == self.out.name and r.value]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    sleep = asyncio.sleep
    monkeypatch.setattr("tpstream.bus.attempt.asyncio.sleep", lambda seconds: sleep(0))
    return Run()


def readings(count: int) -> list[bytes]:
    return [b'{"celsius":%d}' % n for n in range(count)]


async def test_only_the_poison_goes_to_the_dead_letters(run: Run) -> None:
    calls = []

    @run.app.agent(run.readings, tables=(run.counts,))
    async def count(stream: Stream[Reading]) -> None:
        calls.append(1)
        counts = stream.table(run.counts)
        async for reading in stream:
            stream.send(run.out, reading)
            before = counts.get("all")
            counts["all"] = Count(before.n + 1 if before else 1)
            if reading.celsius in (37, 38, 190):
                raise ValueError("too hot to handle")

    values = readings(250)
    values[120] = b'{"celsius":"warm"}'
    await run(*values)
    letters = run.sent.letters()
    assert [(one.source_offset, one.stage, one.reason, one.attempts) for one in letters] == [
        (offset, "count", "agent", 3) for offset in (37, 38, 120, 190)
    ]
    assert "too hot to handle" in letters[0].detail
    assert "plant.readings.v1-0 offset 120: Expected `float`, got `str`" in letters[2].detail
    fine = [n for n in range(250) if n not in (37, 38, 120, 190)]
    assert run.outgoing() == fine, "in order, and nothing of what failed"
    assert run.counts.at(0)["all"] == Count(len(fine))
    assert len(calls) > 3, "it was called for each batch of 100, and for what was tried again"


async def test_a_mass_of_errors_stops_the_agent_and_not_its_neighbours(run: Run) -> None:
    seen = []

    @run.app.agent(run.readings)
    async def broken(stream: Stream[Reading]) -> None:
        async for _ in stream:
            raise RuntimeError("a bug")

    @run.app.batch_agent(run.readings)
    async def neighbour(batch: Any) -> None:
        seen.extend(reading.celsius for _, reading in batch.values())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await run(*readings(1_500))
    assert "a bug" in run.lane.stopped["broken"]
    assert len(run.sent.letters()) == 500
    assert seen == list(range(1_500))
    await run.lane.drain(0.1)


async def test_a_part_that_is_away_is_waited_for(run: Run) -> None:
    away = [True] * 5

    @run.app.agent(run.readings)
    async def patient(stream: Stream[Reading]) -> None:
        async for reading in stream:
            stream.send(run.out, reading)
            if away:
                away.pop()
                raise Unavailable("the thing is away")

    await run(*readings(3))
    assert run.outgoing() == [0, 1, 2]
    assert not run.sent.letters()


async def test_an_agent_that_leaves_its_loop_is_handed_the_rest_anew(run: Run) -> None:
    calls = []

    @run.app.agent(run.readings)
    async def leaves(stream: Stream[Reading]) -> None:
        calls.append(1)
        async for reading in stream:
            stream.send(run.out, reading)
            if reading.celsius in (3, 9):
                return

    await run(*readings(10))
    assert run.outgoing() == list(range(10))
    assert len(calls) == 2


async def test_a_value_that_cannot_be_read_is_poison_even_where_the_agent_lets_it_pass(run: Run) -> None:
    @run.app.agent(run.readings)
    async def careless(stream: Stream[Reading]) -> None:
        try:
            async for reading in stream:
                stream.send(run.out, reading)
        except TpstreamError:
            pass

    await run(b'{"celsius":0}', b"nonsense", b'{"celsius":2}')
    assert run.outgoing() == [0, 2]
    assert [letter.payload for letter in run.sent.letters()] == [b"nonsense"]


async def test_what_an_agent_may_not_do_is_said_in_its_dead_letter(run: Run) -> None:
    async def untouched(stream: Any) -> None: ...

    async def returns(stream: Any) -> Any:
        return [value async for value in stream]

    async def early(stream: Any) -> None:
        stream.send(run.out, Reading(1.0))

    async def stranger(stream: Any) -> None:
        async for _ in stream:
            stream.table(run.counts)["a"] = Count(1)

    async def keyless(stream: Any) -> None:
        async for _, _ in stream.items():
            pass

    said = {
        untouched: "agent untouched returned without taking a record",
        returns: "agent returns returned list, not None",
        early: "agent early: send to plant.out.v1 before a record was taken",
        stranger: "agent stranger: table counts is not its own",
        keyless: r"plant.readings.v1-0 offset 0: the key b'\xff' is no UTF-8",
    }
    for handler in said:
        run.app.agent(run.readings)(handler)

    @run.app.batch_agent(run.readings, name="counts")
    async def counting(batch: Any) -> Any:
        return len(batch)

    await run(b'{"celsius":0}', key=b"\xff")
    details = {letter.stage: letter.detail for letter in run.sent.letters()}
    assert details.pop("counts").startswith("TpstreamError: agent counts returned int, not None")
    assert details.keys() == {handler.__name__ for handler in said}
    for handler, text in said.items():
        assert text in details[handler.__name__]


async def test_events_and_items_have_what_the_record_has(run: Run) -> None:
    seen: list[Any] = []

    @run.app.agent(run.readings)
    async def watch(stream: Stream[Reading]) -> None:
        async for event in stream.events():
            seen.append((event.key, event.timestamp, event.offset, event.partition, event.topic, event.value.celsius))
            assert event.headers == ()

    @run.app.agent(run.readings)
    async def pairs(stream: Stream[Reading]) -> None:
        seen.extend([(key, value.celsius) async for key, value in stream.items()])

    await run(*readings(1))
    assert seen == [("oven", 1_000, 0, 0, "plant.readings.v1", 0.0), ("oven", 0.0)]


async def test_several_sends_of_one_record_are_told_apart(run: Run) -> None:
    @run.app.agent(run.readings)
    async def thrice(stream: Stream[Reading]) -> None:
        async for reading in stream:
            stream.send(run.out, reading)
            stream.send(run.out, reading, key="other", timestamp=7, headers=(("a", b"b"),))
            stream.send(run.out, reading)

    await run(*readings(2))
    rows = run.sent.rows
    assert [(row.key, row.timestamp) for row in rows[:3]] == [(b"oven", 1_000), (b"other", 7), (b"oven", 1_000)]
    headers = [DerivedHeader.unpack(dict(row.headers)["tp"]) for row in rows]
    assert len({header.position for header in headers}) == len({header.origin for header in headers}) == 6
    sequences = [header.position.partition for header in headers]
    assert sequences[:3] == sequences[3:], "the n-th send of each record is in one sequence"


async def repeated(run: Run, handler: Callable[[Any], Awaitable[None]], times: int, count: int) -> None:
    """The same records handed over several times, as after crashes, with what the table has folded still there."""
    drive = driven(handler, (run.counts,))
    records = [FakeRecord(value, n, n, b"oven") for n, value in enumerate(readings(count))]
    for _ in range(times):
        await drive(batch_of(run.readings, records, tables=(run.counts,)))


async def test_a_repeated_record_changes_no_table(run: Run) -> None:
    async def twice(stream: Stream[Reading]) -> None:
        counts = stream.table(run.counts)
        async for reading in stream:
            for key in ("all", "all", "even" if reading.celsius % 2 == 0 else "odd"):
                before = counts[key].n if key in counts else 0
                counts[key] = Count(before + 1)

    await repeated(run, twice, 3, 10)
    part = run.counts.at(0)
    assert (part["all"], part["even"], part["odd"]) == (Count(20), Count(5), Count(5))


async def test_what_is_folded_of_one_raw_partition_says_nothing_of_another(run: Run) -> None:
    async def once(stream: Stream[Reading]) -> None:
        counts = stream.table(run.counts)
        async for _ in stream:
            counts["all"] = Count(counts["all"].n + 1 if "all" in counts else 1)

    def record(offset: int, raw: int, at: int) -> FakeRecord:
        position = Position(LIFE, raw, at)
        return FakeRecord(
            b'{"celsius":1}', offset, headers=(("tp", DerivedHeader(Kind.PUBLISH, position, position).pack()),)
        )

    drive = driven(once, (run.counts,))
    of_one, of_two = record(0, 1, 7), record(1, 2, 7)
    await drive(batch_of(run.readings, [of_one], tables=(run.counts,)))
    await drive(batch_of(run.readings, [of_two, of_one, record(2, 1, 8)], tables=(run.counts,)))
    assert run.counts.at(0)["all"] == Count(3)


async def test_a_handler_that_would_only_fail_later_is_refused_where_it_is_declared(run: Run) -> None:
    app = run.app

    def plain(stream: Any) -> None: ...

    async def yields(stream: Any) -> Any:
        yield 1

    async def two(stream: Any, more: Any) -> None: ...

    async def fine(stream: Any) -> None: ...

    class Handler:
        async def __call__(self, stream: Any) -> None: ...

    anything: Any = lambda handler, **options: [  # noqa: E731
        declare(run.readings, **options)(handler) for declare in (app.agent, app.batch_agent)
    ]
    for handler, why in ((plain, "no coroutine function"), (yields, "it yields"), (two, "with one argument")):
        with pytest.raises(ConfigurationError, match=rf"agent '{handler.__name__}' \(.*test_stream.py:\d+\): .*{why}"):
            anything(handler)
    anything(functools.partial(two, more=1), name="partial")
    anything(Handler())
    for arguments, options, why in (
        ((), {}, "it has no topic"),
        (("plant.readings.v1",), {}, "'plant.readings.v1' is no topic; .*app.topic"),
        ((run.readings, run.readings), {}, "named 2 times"),
        ((run.readings,), {"role": "proces"}, "role 'proces' is none of process, store"),
        ((run.readings,), {"tables": ("counts",)}, "'counts' is no tpstream.Table"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            app.batch_agent(*arguments, **options)(fine)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="0 records at once"):
        app.agent(run.readings, at_once=0)(fine)
    app.agent(run.readings, tables=(run.counts,), name="first")(fine)
    with pytest.raises(ConfigurationError, match="table counts belongs to agent 'first'"):
        app.agent(run.readings, tables=(run.counts,))(fine)


def test_two_agents_of_one_name_from_two_modules_are_refused(run: Run) -> None:
    async def one(stream: Any) -> None: ...

    async def other(stream: Any) -> None: ...

    other.__module__ = "elsewhere"
    run.app.agent(run.readings, name="same")(one)
    run.app.agent(run.readings, name="same")(one)
    with pytest.raises(ConfigurationError, match="two agents are named 'same'"):
        run.app.agent(run.readings, name="same")(other)


def test_positions_of_a_stream_are_the_batchs() -> None:
    batch = batch_of(topics.uplink_raw, [FakeRecord(b"", 4)])
    assert batch.position(batch.records[0]) == Position(LIFE, 0, 4)

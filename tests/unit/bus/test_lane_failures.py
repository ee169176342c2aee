"""What goes wrong around a handler ends in a dead letter or ends the worker; nothing stands still in silence."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tpstream import bus
from tpstream.bus import topics
from tpstream.bus.agent import Agent, Handler
from tpstream.bus.attempt import Recent, one_line
from tpstream.bus.batch import Batch, Outgoing
from tpstream.bus.lane import Lane
from tpstream.bus.position import Life, Position
from tpstream.bus.topics import uplink_telemetry
from tpstream.errors import Rejected, Unavailable
from tpstream.observability import metrics
from tpstream.settings import Settings
from tpstream.testing import FakeRecord

LIFE = Life(bytes([1] * 16))


class Sent:
    """A topic sink that keeps what it is given, and can be told to refuse."""

    name = "topics"
    pending = 0

    def __init__(self) -> None:
        self.rows: list[Outgoing] = []
        self.refusals: list[Exception] = []

    def add(self, rows: Sequence[Outgoing], positions: Sequence[Any], agent: str = "") -> None:
        if any(row.value == b"refuse me" for row in rows):
            raise Rejected("a record that Kafka would never take")
        if self.refusals:
            raise self.refusals.pop()
        self.rows += rows

    async def flush(self) -> None: ...

    async def close(self) -> None: ...

    def letters(self) -> list[Any]:
        return [
            topics.dead_letters.decode(r.value) for r in self.rows if r.topic == topics.dead_letters.name and r.value
        ]


def lane(handler: Handler) -> tuple[Lane, Sent]:
    sent = Sent()
    services: Any = SimpleNamespace(settings=Settings.load({}))
    one = Lane([Agent("agent", handler, (topics.uplink_raw,), (), "process")], services, sent)
    one.assign([(topics.uplink_raw.name, 0)], LIFE)
    return one, sent


def offer(one: Lane, *values: bytes, headers: Any = ()) -> None:
    records: Any = [FakeRecord(value, n, 1_000, b"d", headers) for n, value in enumerate(values)]
    one.offer(topics.uplink_raw.name, 0, records)


async def done(one: Lane, offset: int) -> None:
    progress = one.progress[topics.uplink_raw.name, 0]
    async with asyncio.timeout(5):
        while progress.acknowledged() < offset and not one.failed.is_set():
            await asyncio.sleep(0.01)
    assert not one.failure
    await one.drain(1.0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep = asyncio.sleep

    async def soon(seconds: float) -> None:
        await sleep(0)

    monkeypatch.setattr("tpstream.bus.attempt.asyncio.sleep", soon)


async def copy(batch: Batch) -> None:
    for record in batch:
        batch.outgoing.append(Outgoing("t", 0, b"", record.value, (), record.timestamp))


async def test_a_record_whose_result_no_sink_takes_is_a_dead_letter() -> None:
    one, sent = lane(copy)
    offer(one, b"a", b"refuse me", b"b")
    await done(one, 3)
    assert [letter.payload for letter in sent.letters()] == [b"refuse me"]
    assert {row.value for row in sent.rows if row.topic == "t"} == {b"a", b"b"}


async def test_a_sink_that_is_away_is_waited_for() -> None:
    one, sent = lane(copy)
    sent.refusals = [Unavailable("the disk is full")] * 5
    offer(one, b"a")
    await done(one, 1)
    assert [row.value for row in sent.rows] == [b"a"]
    assert not one.waiting


async def test_a_handler_that_lets_a_foreign_cancellation_through_has_failed() -> None:
    async def leaky(batch: Batch) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    one, sent = lane(leaky)
    offer(one, b"a")
    await done(one, 1)
    assert [letter.payload for letter in sent.letters()] == [b"a"]


async def test_a_dead_letter_of_a_record_with_an_empty_header_can_be_read() -> None:
    async def picky(batch: Batch) -> None:
        raise ValueError("no")

    one, sent = lane(picky)
    offer(one, b"a", headers=(("odd", None),))
    await done(one, 1)
    assert [letter.headers for letter in sent.letters()] == [(("odd", b""),)]


async def test_a_task_that_nothing_foresees_the_end_of_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*arguments: Any) -> None:
        raise KeyError("a bug of the lane")

    monkeypatch.setattr("tpstream.bus.attempt.Attempts.run", broken)
    one, _ = lane(copy)
    offer(one, b"a")
    async with asyncio.timeout(5):
        await one.failed.wait()
    assert one.failure.startswith("agent-0 ended: KeyError: 'a bug of the lane'")


async def test_a_drain_is_no_failure() -> None:
    async def endless(batch: Batch) -> None:
        await asyncio.Event().wait()

    one, _ = lane(endless)
    offer(one, b"a")
    await asyncio.sleep(0.01)
    await one.drain(0.01)
    await asyncio.sleep(0)
    assert not one.failed.is_set()


async def test_an_agent_of_which_topics_refuse_most_takes_no_more() -> None:
    one, sent = lane(copy)
    offer(one, *[b"%d" % n for n in range(1_000)])
    progress = one.progress[topics.uplink_raw.name, 0]
    async with asyncio.timeout(5):
        while progress.acknowledged() < 1_000:
            await asyncio.sleep(0)
    one.settled("agent", 1_000, 499, "too large")
    assert not one.stopped
    one.settled("agent", 1_000, 500, "too large, too")
    assert one.stopped == {"agent": "half of the last 1000 records that it sent are refused, last: too large, too"}
    records: Any = [FakeRecord(b"later", 1_000, 1_000, b"d", ())]
    one.offer(topics.uplink_raw.name, 0, records)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (len(sent.rows), progress.acknowledged()) == (1_000, 1_000), "it waits for a restart"
    await one.drain(1.0)


@pytest.mark.parametrize(
    ("each_time", "mass"),
    [
        ([(1_000, 499)], False),
        ([(1_000, 500)], True),
        ([(100_000, 4_000)], False),  # more than a thousand, but one in 25
        ([(100, 60)] * 8, False),
        ([(100, 60)] * 9, True),
        ([(100, 40)] * 100, False),
        ([(10_000_000, 400), (1_000, 900)], True),  # what was long ago does not count
        ([(1, 1)] * 499 + [(1_000, 0)], False),
        ([(1, 1)] * 500, True),
    ],
)
def test_a_mass_is_half_of_the_last_thousand(each_time: list[tuple[int, int]], mass: bool) -> None:
    recent = Recent()
    for count, bad in each_time:
        recent.add(count, bad)
    assert recent.is_mass is mass


def read_json() -> None:
    json.loads("{oops")


def encode_wrongly() -> None:
    uplink_telemetry.encode(object())


def time_out() -> None:
    raise TimeoutError("no answer from the plant")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (read_json, "JSONDecodeError: Expecting property name enclosed in double quotes"),
        (encode_wrongly, "TypeError: "),
        (time_out, "TimeoutError: no answer from the plant"),
    ],
)
def test_an_error_is_said_with_the_line_of_the_handler_and_not_of_a_library(wrong: Any, said: str) -> None:
    try:
        wrong()
    except Exception as error:
        line = one_line(error)
    assert line.startswith(said)
    assert line.endswith(f" at test_lane_failures.py:{wrong.__code__.co_firstlineno + 1}")


def test_an_application_in_a_folder_beside_the_package_is_their_code() -> None:
    names: dict[str, Any] = {}
    exec(
        compile("def wrong():\n    return int('x')", f"{Path(bus.__file__).parents[1]}_plants/totals.py", "exec"), names
    )
    with pytest.raises(ValueError, match="invalid literal") as raised:
        names["wrong"]()
    assert one_line(raised.value).endswith(" at totals.py:2")


async def test_an_error_without_a_line_is_said_without() -> None:
    with pytest.raises(TimeoutError) as hung:
        await asyncio.wait_for(asyncio.Event().wait(), 0)
    assert one_line(hung.value) == "the handler hung beyond TPSTREAM_HANDLER_SECONDS"
    assert one_line(ValueError("two\nlines")) == "ValueError: two"


async def test_input_that_is_not_there_any_more_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    one, sent = lane(copy)
    name = topics.uplink_raw.name
    before = missed(name)
    for offset, committed in ((7, 5), (8, 5), (20, 5)):
        records: Any = [FakeRecord(b"x", offset, 1_000, b"d", ())]
        one.offer(name, 0, records, committed)
    await done(one, 21)
    assert len(sent.rows) == 3
    assert missed(name) - before == 2 + 11
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" were not read")[0] for line in said] == [
        "tp.uplink.raw.v1-0: offsets 5 to 6",
        "tp.uplink.raw.v1-0: offsets 9 to 19",
    ]


@pytest.mark.parametrize(("first", "committed", "said"), [(5, 5, 0), (5, None, 0), (0, 5, 1)])
async def test_a_topic_that_was_made_anew_is_named(
    caplog: pytest.LogCaptureFixture, first: int, committed: int | None, said: int
) -> None:
    one, _ = lane(copy)
    records: Any = [FakeRecord(b"x", first, 1_000, b"d", ())]
    one.offer(topics.uplink_raw.name, 0, records, committed)
    await done(one, first + 1)
    assert caplog.text.count("tp.uplink.raw.v1-0 was made anew: it begins at 0, and was committed up to 5") == said
    assert len(caplog.records) == said


def missed(topic: str) -> float:
    return metrics.INPUT_MISSED.labels(topic)._value.get()


async def test_a_batch_that_sends_too_much_comes_again_in_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one handler may hold in memory is bounded, whatever it makes of its records."""
    monkeypatch.setattr("tpstream.bus.batch.MOST_SENT", 1_000)
    monkeypatch.setattr("tpstream.bus.attempt.MOST_SENT", 1_000)
    sizes, most, poison = [], 0, {37}
    out: Any = topics.Topic("out.v1", bytes)

    async def swell(batch: Batch) -> None:
        nonlocal most
        sizes.append(len(batch))
        for record in batch:
            with contextlib.suppress(LookupError):  # a handler that catches what it can
                batch.send(out, record.value, key="d", position=Position(LIFE, 0, record.offset), timestamp=1)
            most = max(most, sum(len(row.value or b"") for row in batch.outgoing))
            if record.offset in poison:
                raise ValueError("poison")

    one, sent = lane(swell)
    large = [b"%03d" % n + b"x" * (5_000 if n == 50 else 300 if n < 60 else 0) for n in range(200)]
    offer(one, *large)
    await done(one, 200)
    assert [row.value for row in sent.rows if row.topic == out.name] == [v for n, v in enumerate(large) if n != 37]
    assert [letter.source_offset for letter in sent.letters()] == [37]
    assert most == 5_003, "what a single record sends is not bounded; of several no more than 1,000 are kept"
    assert sizes[0] == 200
    assert sizes[-1] > 20, "they grow again where they send little"

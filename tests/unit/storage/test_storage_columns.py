"""Columns from messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.store import _BUILDERS, store
from tpstream.bus import topics
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.errors import TpstreamError
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
from tpstream.storage import columns, tables
from tpstream.storage.native import Few
from tpstream.storage.schema import migrations, statements
from tpstream.testing import LIFE, Position, make_batch


def test_each_point_is_a_row_with_its_place():
    messages = [Telemetry("a", (Point("x", 1, 1.0), Point("y", 2, None, "t", "text", "delivery"))), Telemetry("b", ())]
    messages.append(Telemetry("c", (Point("z", 3, 3.0),)))
    origins = [Position(LIFE, 1, 10), Position(LIFE, 1, 11), Position(LIFE, 2, 12, 5)]
    made = columns.telemetry(messages, origins, [100, 101, 102])
    assert made.rows() == [
        ("a", "x", 1, "device", "number", 1.0, "", 100, LIFE.hex(), 1, 10, 0),
        ("a", "y", 2, "delivery", "text", None, "t", 100, LIFE.hex(), 1, 10, 1),
        ("c", "z", 3, "device", "number", 3.0, "", 102, LIFE.hex(), 2, 12, 5),
    ]


class Sinks:
    def __init__(self) -> None:
        for table, _ in _BUILDERS.values():
            setattr(self, table, table)


class Services:
    store = Sinks()


async def test_the_agent_gives_each_topic_s_rows_to_its_table():
    samples = {
        topics.uplink_telemetry: Telemetry("d", (Point("k", 1, 1.0),)),
        topics.windows: WindowResult("w", "d", "k", 0, 1, "mean", 1.0, 1, 2),
        topics.alarms: Alarm("a", "r", "d", "high", AlarmState.ACTIVE, 1, 1),
        topics.command_status: CommandStatus("c", "d", "m", CommandState.SENT, 1, 1, 1),
        topics.dead_letters: DeadLetter("l", 1, "d", "decode", "json", payload=b"\xff"),
        topics.device_status: DeviceStatus("d", True, 1),
    }
    shapes = (
        tables.TELEMETRY,
        tables.WINDOWS,
        tables.ALARMS,
        tables.COMMANDS,
        tables.DEAD_LETTERS,
        tables.DEVICE_STATUS,
    )
    for (topic, sample), shape in zip(samples.items(), shapes, strict=True):
        batch = make_batch(topic, [sample, sample], services=Services, timestamps=[5, 6])
        await store(batch)
        ((sink, rows, _),) = batch.rows
        assert sink == shape.name
        assert len(rows.columns) == len(shape.columns)
        assert len(rows.rows()) == rows.size == 2


@pytest.mark.parametrize(
    ("ts", "delivered", "stored"),
    [
        (7, 9, 7),
        (1_700_000_000_000_000, 9, 9),
        (-1, 9, 9),
        (253_402_300_800_000, -1, 0),
        (253_402_300_799_999, 9, None),
    ],
)
def test_a_letter_s_time_is_one_that_readers_can_read(ts, delivered, stored):
    letter = DeadLetter("l", ts, "d", "mixer", "agent", payload=b"")
    rows = columns.dead_letters([letter], [Position(LIFE, 0, 0)], [delivered])
    assert rows.rows()[0][1] == (ts if stored is None else stored)


async def test_an_empty_batch_and_ticks_add_nothing():
    batch = make_batch(topics.uplink_telemetry, [Telemetry("d", ())], services=Services, kind=Kind.TICK)
    await store(batch)
    assert batch.rows == []


def test_migrations_are_numbered_without_gaps():
    assert [m.version for m in migrations()] == list(range(1, len(migrations()) + 1))
    assert all(m.statements for m in migrations())


def test_statements_end_with_a_semicolon_at_the_end_of_a_line():
    assert statements("-- a;\nSELECT 1;\n\nSELECT ';'\n FROM x;\n") == ("SELECT 1", "SELECT ';'\n FROM x")


@given(
    places=st.lists(
        st.tuples(st.sampled_from([b"\0" * 16, b"1" * 15 + b"\0", LIFE]), st.integers(0, 2**32 - 1),
                  st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_origins_are_read_from_packed_headers_as_they_are_one_by_one(places):
    headers = [DerivedHeader(Kind.PUBLISH, Position(LIFE, 9, 9, 9), Position(*place)).pack() for place in places]
    read, made = columns.Origins.read(headers), columns.Origins.of(places)
    for one, other in zip(read, made, strict=True):
        if isinstance(one, Few):
            assert [one.words[n] for n in one.places] == [other.words[n] for n in other.places]
        else:
            assert one.tolist() == other.tolist()


@pytest.mark.parametrize("torn", [b"", b"\x81\x01", b"\x90" + bytes(61)])
def test_a_torn_or_newer_header_is_an_error(torn):
    whole = DerivedHeader(Kind.PUBLISH, Position(LIFE, 0, 0), Position(LIFE, 0, 0)).pack()
    with pytest.raises(TpstreamError, match="newer than this worker"):
        columns.Origins.read([whole, torn])


async def test_a_record_of_somebody_else_s_producer_stands_for_itself():
    batch = make_batch(topics.uplink_telemetry, [Telemetry("d", (Point("k", 1, 1.0),))] * 2, services=Services)
    batch.records[1].headers = ()
    await store(batch)
    ((_, rows, _),) = batch.rows
    assert [row[9] for row in rows.rows()] == [0, batch.derived(batch.records[1]).origin.partition]


async def test_a_message_that_is_none_names_its_topic():
    batch = make_batch(topics.uplink_telemetry, [Telemetry("d", ())], services=Services)
    batch.records[0].value = b'{"device": 5}'
    with pytest.raises(TpstreamError, match=r"tp\.uplink\.telemetry\.v1"):
        await store(batch)

"""A batch says whose records it cannot read, and what cannot be sent; positions never lie."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus import topics
from tpstream.bus.batch import Batch, foreign, kind_of
from tpstream.bus.envelope import DerivedHeader, Kind, RawHeader, pack_derived, position_in
from tpstream.bus.partitioner import partition_of
from tpstream.bus.position import Life, Position
from tpstream.errors import TpstreamError
from tpstream.messages import Point, Telemetry
from tpstream.testing import LIFE, FakeRecord


class Reading(msgspec.Struct):
    celsius: float


readings = topics.declare("plant.readings.v1", Reading, partitions=3)
blobs = topics.declare("plant.blobs.v1", bytes)
loose = topics.declare("plant.loose.v1", dict[str, float])

number = st.integers(0, (1 << 32) - 1)
positions = st.builds(
    Position, st.binary(min_size=16, max_size=16).map(Life), number, st.integers(0, (1 << 63) - 1), number
)


@given(st.sampled_from(Kind), positions, positions)
def test_a_packed_header_is_the_same_by_either_way(kind: Kind, position: Position, origin: Position) -> None:
    header = DerivedHeader(kind, position, origin)
    assert pack_derived(kind, position, origin) == header.pack()
    assert pack_derived(kind, position) == DerivedHeader(kind, position, position).pack()
    for packed in (header.pack(), DerivedHeader(kind, position, position).pack()):
        read = DerivedHeader.unpack(packed)
        assert read.pack() == packed
        assert (type(read.position), type(read.origin), type(read.kind)) == (Position, Position, Kind)
        assert position_in(packed) == position


@pytest.mark.parametrize("data", [b"", b"\x81", b"\x82" + bytes(65), b"\x81\x63" + bytes(64), bytes(65)])
def test_a_header_of_another_version_is_refused(data: bytes) -> None:
    with pytest.raises(TpstreamError, match="newer than this worker"):
        position_in(data)


def over(topic: topics.Topic[Any], *records: FakeRecord) -> Batch:
    return Batch(topic, 2, records, LIFE, "watch", None)


def test_values_passes_over_what_is_no_publish() -> None:
    tick = (("topic", b"x"), ("tp", RawHeader(Kind.TICK).pack()))
    publish = (("topic", b"x"), ("tp", RawHeader(Kind.PUBLISH).pack()))
    records = [
        FakeRecord(b"a", 1, headers=publish),
        FakeRecord(b"b", 2, headers=tick),
        FakeRecord(None, 3),
        FakeRecord(b"d", 4),
        FakeRecord(b"e", 5, headers=(("other", b""),)),
        FakeRecord(b"f", 6, headers=(("tp", b""),)),
    ]
    assert [(record.offset, value) for record, value in over(blobs, *records).values()] == [
        *((1, b"a"), (4, b"d"), (5, b"e"), (6, b"f"))
    ]
    for odd in (b"\x01", b"\x01\x63"):
        with pytest.raises(TpstreamError, match="unknown kind"):
            list(over(blobs, FakeRecord(b"a", headers=(("tp", odd),))).values())
        with pytest.raises(TpstreamError, match="unknown kind"):
            kind_of(FakeRecord(b"a", headers=(("tp", odd),)))


def test_a_value_of_another_shape_is_named() -> None:
    batch = over(readings, FakeRecord(b'{"celsius": 1}', 6), FakeRecord(b'{"celsius": "warm"}', 7))
    with pytest.raises(TpstreamError, match=r"plant\.readings\.v1-2 offset 7: Expected `float`, got `str` .*celsius"):
        list(batch.values())


def test_records_of_different_topics_have_positions_of_their_own() -> None:
    one, other = (over(topic, FakeRecord(b"", 5)) for topic in (readings, blobs))
    assert one.position(one.records[0]) != other.position(other.records[0])
    assert one.position(one.records[0]) == Position(LIFE, foreign("plant.readings.v1", 2), 5)
    assert one.derived(one.records[0]) == (Kind.PUBLISH, *[one.position(one.records[0])] * 2)
    assert foreign("plant.readings.v1", 1023) < 1 << 31  # the field has 32 bits
    raw = over(topics.uplink_raw, FakeRecord(b"", 5))
    assert raw.position(raw.records[0]) == Position(LIFE, 2, 5)


POSITION = Position(LIFE, 2, 7)


@pytest.mark.parametrize(
    ("topic", "value", "key", "timestamp", "wrong"),
    [
        (readings, Reading(1.0), b"d", 1, "the key is bytes .*, not str"),
        (readings, Reading(1.0), None, 1, "the key is None, not str"),
        (readings, Reading(1.0), "d", 1.5, "the timestamp is float '1.5', not int"),
        (readings, {"celsius": 1.0}, "d", 1, "the value is dict .*, not Reading"),
        (topics.uplink_telemetry, Reading(1.0), "d", 1, "the value is Reading .*, not Telemetry"),
        (blobs, "text", "d", 1, "the value is str 'text', not bytes"),
        (loose, [1.0], "d", 1, "the value is list .*, not dict"),
        (loose, {"a": object()}, "d", 1, "the value: Encoding objects of type object is unsupported"),
    ],
)
def test_what_cannot_be_sent_is_named(topic: Any, value: Any, key: Any, timestamp: Any, wrong: str) -> None:
    batch = over(blobs)
    where = rf"agent watch on plant.blobs.v1-2 sends to {topic.name} of what stands at 2-7: "
    with pytest.raises(TpstreamError, match=where + wrong):
        batch.send(topic, value, key=key, position=POSITION, timestamp=timestamp)
    assert not batch.outgoing


def test_what_is_sent() -> None:
    class Name(str):
        __slots__ = ()

    batch = over(blobs)
    message = Telemetry("d", (Point("t", 1, 2.0),))
    batch.send(topics.uplink_telemetry, message, key="d", position=POSITION, timestamp=1)
    batch.send(readings, Reading(1.5), key=Name("é"), position=POSITION, timestamp=2, headers=(("a", b"b"),))
    batch.send(topics.config_devices, None, key="d", position=POSITION, timestamp=3)
    batch.send(loose, b"{}", key="d", position=POSITION, timestamp=4, partition=5)
    tp = ("tp", DerivedHeader(Kind.PUBLISH, POSITION, POSITION).pack())
    assert batch.outgoing == [
        ("tp.uplink.telemetry.v1", None, b"d", topics.uplink_telemetry.encode(message), [tp], 1),
        ("plant.readings.v1", partition_of("é".encode(), 3), "é".encode(), b'{"celsius":1.5}', [tp, ("a", b"b")], 2),
        ("tp.config.devices.v1", 0, b"d", None, [tp], 3),
        ("plant.loose.v1", 5, b"d", b"{}", [tp], 4),
    ]


def test_sends_beside_are_told_apart_by_agent_place_and_number() -> None:
    record = FakeRecord(b"", 7, headers=(("tp", DerivedHeader(Kind.PUBLISH, POSITION, POSITION).pack()),))
    one, other = over(blobs, record), Batch(blobs, 2, [record], LIFE, "other", None)
    made = [one.beside(record), one.beside(record, 1), one.beside(record, 2), other.beside(record)]
    assert len({position.partition for position, _ in made}) == 4
    assert all(position[2:] == POSITION[2:] for position, _ in made)
    assert made[0][1] == made[3][1] == POSITION, "its origin is the record's"
    assert len({origin for _, origin in made[:3]}) == 3

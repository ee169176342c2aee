"""The codec: whatever way the bytes are cut, the same packets come out; garbage ends in a reason, never a crash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import mqtt_wire as wire

from connectors.mqtt_bridge.endpoint.packets import Connect, Disconnect, Packet, Ping, Puback, Subscribe, Unsubscribe
from connectors.mqtt_bridge.endpoint.reasons import Reason, Violation
from connectors.mqtt_bridge.endpoint.stream import KEPT, Stream
from connectors.mqtt_bridge.publish import Publish

MAX_PAYLOAD = 100_000
MAX_PACKET = 1_000_000


def stream(version: int = 5) -> Stream:
    """A stream behind a CONNECT of that version."""
    made = Stream(MAX_PACKET, MAX_PAYLOAD)
    made.feed(wire.connect("c", "d", version=version))
    assert isinstance(made.next(), Connect)
    return made


def packets(made: Stream, pieces: Iterable[bytes]) -> list[Packet]:
    found = []
    for piece in pieces:
        made.feed(piece)
        while (packet := made.next()) is not None:
            found.append(packet)
    return found


def seen(packet: Packet) -> object:
    """A packet as a value that can be compared."""
    if not isinstance(packet, Publish):
        return packet
    return tuple(getattr(packet, name) for name in Publish.__slots__ if name != "source")


USERS = b"\x26" + wire.text("k") + wire.text("v") + b"\x03" + wire.text("text/plain")
SAMPLES = [
    wire.publish("a/b", b"payload", packet_id=7, properties=USERS),
    wire.publish("a/b", b"", retained=True),
    wire.publish("ü" * 90, b"x" * 300, packet_id=65_535, dup=True),
    wire.publish("large", b"y" * 70_000, packet_id=1),
    wire.publish("too/large", bytes(range(256)) * 600, packet_id=2, properties=USERS),
    wire.PINGREQ,
    wire.puback(3),
    wire.puback(4, 0x87),
    wire.subscribe(5, [("a/+", 1), ("b/#", 2)]),
    wire.unsubscribe(6, ["a/+", "b/#"]),
    wire.BYE,
]


def whole(samples: Iterable[bytes]) -> list[object]:
    return [seen(one) for one in packets(stream(), samples)]


@given(st.lists(st.sampled_from(SAMPLES), max_size=6), st.lists(st.integers(0, 200_000), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same_packets(samples: list[bytes], cuts: list[int]) -> None:
    data = b"".join(samples)
    places = sorted({0, len(data), *(one % (len(data) + 1) for one in cuts)})
    pieces = [data[a:b] for a, b in pairwise(places)]
    assert [seen(one) for one in packets(stream(), pieces)] == whole(samples)


def test_one_byte_at_a_time() -> None:
    samples = [one for one in SAMPLES if len(one) < 1_000]
    data = b"".join(samples)
    assert [seen(one) for one in packets(stream(), (data[n : n + 1] for n in range(len(data))))] == whole(samples)


@given(st.binary(max_size=200), st.sampled_from([4, 5]))
@settings(max_examples=500, deadline=None)
def test_garbage_ends_in_a_reason(data: bytes, version: int) -> None:
    with suppress(Violation):
        packets(stream(version), [data])


@given(st.sampled_from(SAMPLES[:4] + SAMPLES[6:10]), st.data())
@settings(max_examples=500, deadline=None)
def test_a_garbled_packet_ends_in_a_reason_or_in_a_packet(sample: bytes, data: st.DataObject) -> None:
    garbled = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 4))):
        garbled[data.draw(st.integers(0, min(len(garbled), 40) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Violation):
        packets(stream(), [bytes(garbled)])


@given(st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_garbage_instead_of_connect(data: bytes) -> None:
    try:
        found = packets(Stream(MAX_PACKET, MAX_PAYLOAD), [data])
    except Violation:
        return
    assert all(isinstance(one, Connect) for one in found[:1])


def test_what_a_publish_says() -> None:
    (one,) = packets(stream(), [wire.publish("a/b", b"hi", packet_id=7, dup=True, retained=True, properties=USERS)])
    assert isinstance(one, Publish)
    assert (one.topic, one.payload, one.qos, one.packet_id) == ("a/b", b"hi", 1, 7)
    assert (one.dup, one.retained) == (True, True)
    assert (one.content_type, one.users) == ("text/plain", (("k", "v"),))


def test_what_the_others_say() -> None:
    assert packets(stream(), SAMPLES[5:]) == [
        Ping(),
        Puback(3, 0),
        Puback(4, 0x87),
        Subscribe(5, (("a/+", 1), ("b/#", 2))),
        Unsubscribe(6, ("a/+", "b/#")),
        Disconnect(0),
    ]


def test_what_connect_says() -> None:
    made = Stream(MAX_PACKET, MAX_PAYLOAD)
    offered = b"\x11\0\0\0\x05" + b"\x21\0\x09" + b"\x27\0\0\x10\0"
    made.feed(wire.connect("c", "u", keep_alive=7, clean=False, password=b"p", properties=offered))
    assert made.next() == Connect(5, False, 7, "c", "u", b"p", None, 5, 9, 4096)


def test_a_payload_above_the_limit_is_hashed_and_cut() -> None:
    payload = bytes(range(256)) * 1_000
    data = wire.publish("t", payload, packet_id=9)
    made = stream()
    (one,) = packets(made, [data[n : n + 10_000] for n in range(0, len(data), 10_000)])
    assert isinstance(one, Publish)
    assert (one.size, one.payload, one.packet_id) == (256_000, payload[:KEPT], 9)
    assert one.digest == hashlib.sha256(payload).hexdigest()
    assert made.buffered == 0


def test_the_limit_is_of_the_payload_not_of_the_packet() -> None:
    (one,) = packets(stream(), [wire.publish("t" * 200, b"x" * MAX_PAYLOAD, packet_id=9)])
    assert isinstance(one, Publish)
    assert one.digest == ""


def test_a_payload_that_is_cut_takes_no_memory() -> None:
    made = stream()
    made.feed(b"\x32" + wire.varint(900_000) + wire.text("t") + b"\0\x01\0")
    for _ in range(80):
        made.feed(b"x" * 10_000)
        assert made.next() is None
        assert made.buffered == 0


def test_a_packet_above_the_limit_is_refused_at_its_fixed_header() -> None:
    made = stream()
    made.feed(b"\x32" + wire.varint(MAX_PACKET + 1))
    with pytest.raises(Violation) as refused:
        made.next()
    assert refused.value.reason is Reason.PACKET_TOO_LARGE


def test_before_connect_little_is_read() -> None:
    made = Stream(16_000_000, 1_000_000)
    made.feed(b"\x10" + wire.varint(1_000_000))
    with pytest.raises(Violation):
        made.next()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x30\xff\xff\xff\xff", Reason.MALFORMED),
        (wire.publish("a", qos=3, packet_id=1), Reason.MALFORMED),
        (wire.publish("a", qos=2, packet_id=1), Reason.QOS_NOT_SUPPORTED),
        (wire.publish("", b""), Reason.PROTOCOL_ERROR),
        (wire.publish("a/+", b""), Reason.TOPIC_INVALID),
        (wire.publish(b"\xed\xa0\x80", b""), Reason.MALFORMED),
        (wire.publish("a\0b", b""), Reason.MALFORMED),
        (wire.publish("a", dup=True), Reason.MALFORMED),
        (wire.packet(0x32, wire.text("a") + b"\0\0\0"), Reason.PROTOCOL_ERROR),
        (wire.publish("a", properties=b"\x23\0\x01"), Reason.TOPIC_ALIAS_INVALID),
        (wire.publish("a", properties=b"\x01\0\x01\0"), Reason.PROTOCOL_ERROR),
        (wire.publish("a", properties=b"\x21\0\x01"), Reason.PROTOCOL_ERROR),
        (wire.packet(0x80, b"\0\x01\0" + wire.text("a") + b"\0"), Reason.MALFORMED),
        (wire.subscribe(1, []), Reason.PROTOCOL_ERROR),
        (wire.unsubscribe(1, []), Reason.PROTOCOL_ERROR),
        (wire.packet(0x50, b"\0\x01"), Reason.QOS_NOT_SUPPORTED),
        (wire.packet(0xF0), Reason.PROTOCOL_ERROR),
    ],
)
def test_violations(data: bytes, reason: Reason) -> None:
    with pytest.raises(Violation) as violation:
        packets(stream(), [data])
    assert violation.value.reason is reason


@pytest.mark.parametrize(
    "data",
    [
        wire.packet(0x10, wire.text("MQIsdp") + b"\x03\x02\0\0" + wire.text("c")),
        wire.packet(0x10, wire.text("MQTT") + b"\x06\x02\0\0" + wire.text("c")),
    ],
)
def test_versions_that_are_not_spoken(data: bytes) -> None:
    made = Stream(MAX_PACKET, MAX_PAYLOAD)
    made.feed(data)
    with pytest.raises(Violation) as violation:
        made.next()
    assert violation.value.reason is Reason.UNSUPPORTED_VERSION

"""The session: packets, clock and events in, effects out, without a socket."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from parts import mqtt_wire as wire

from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.downlink import Downlink, Receipt
from connectors.mqtt_bridge.endpoint.effects import Arrived, Closed, Deafened, Dropped, Effect, Listens
from connectors.mqtt_bridge.endpoint.outbox import QUEUED
from connectors.mqtt_bridge.endpoint.reasons import Reason
from connectors.mqtt_bridge.endpoint.session import CONNECT_SECONDS, Held, Session
from connectors.mqtt_bridge.endpoint.sessions import Client, Kept
from connectors.mqtt_bridge.publish import OVERHEAD, Publish
from tpstream.settings import Settings


class Device:
    """A session, the bytes it wrote, and a clock that stands still until it is moved."""

    def __init__(self, *, login: str | None = "d", version: int = 5, connect: bool = True, **more: Any) -> None:
        limits = {name: more.pop(name) for name in ("receive_maximum", "max_payload") if name in more}
        self.budget = Budget(more.pop("max_buffered_bytes", 1_000_000))
        self.now = 1_000.0
        self.version = version
        self.session = Session(Settings(**limits), self.budget, self.now)
        if connect:
            (arrived,) = self.sends(wire.connect("c", login, version=version, **more))
            assert isinstance(arrived, Arrived)
            self.session.accept(login, Kept(7), Client(login, "c"), False, arrived.connect)
            assert self.session.proceed(self.now) == []
            assert [one.kind for one in self.answers()] == [wire.CONNACK]

    def sends(self, *data: bytes) -> list[Effect]:
        return self.session.receive(b"".join(data), self.now)

    def publish(self, packet_id: int = 0, payload: bytes = b"x", topic: str = "t") -> bytes:
        return wire.publish(topic, payload, packet_id=packet_id, version=self.version)

    def answers(self) -> list[wire.Answer]:
        found, left = wire.split(bytes(self.session.out))
        self.session.out.clear()
        assert not left
        return found

    def pubacks(self) -> list[int]:
        return [one.packet_id for one in self.answers() if one.kind == wire.PUBACK]


def ids(effects: list[Effect]) -> list[int]:
    return [one.packet_id for one in effects if isinstance(one, Publish)]


def land(device: Device, *publishes: Effect) -> None:
    for one in publishes:
        assert isinstance(one, Publish)
        one.landed = True
        device.budget.give_back(one.cost)
    device.session.landed()


@pytest.mark.parametrize("version", [4, 5])
def test_a_publish_is_acknowledged_when_it_has_landed_and_not_before(version: int) -> None:
    device = Device(version=version)
    (publish,) = device.sends(device.publish(5))
    assert device.answers() == []
    land(device, publish)
    assert device.pubacks() == [5]


def test_acknowledgements_keep_the_order_of_the_publishes() -> None:
    device = Device()
    first, second, third = device.sends(*(device.publish(n) for n in (1, 2, 3)))
    land(device, third)
    assert device.pubacks() == []
    land(device, first)
    assert device.pubacks() == [1]
    land(device, second)
    assert device.pubacks() == [2, 3]


def test_a_packet_id_that_is_sent_twice_is_acknowledged_twice() -> None:
    device = Device()
    first, again = device.sends(device.publish(1), device.publish(1))
    land(device, again)
    assert device.pubacks() == []
    land(device, first)
    assert device.pubacks() == [1, 1]


def test_a_refusal_stands_in_the_acknowledgement() -> None:
    device = Device()
    (publish,) = device.sends(device.publish(1))
    assert isinstance(publish, Publish)
    publish.reason = Reason.NOT_AUTHORIZED
    land(device, publish)
    assert [one.body for one in device.answers()] == [b"\0\x01\x87"]


def test_the_receive_maximum() -> None:
    device = Device(receive_maximum=3)
    taken = device.sends(*(device.publish(n) for n in range(1, 6)), wire.PINGREQ)
    assert ids(taken) == [1, 2, 3]
    assert device.session.held is Held.RECEIVE_MAXIMUM
    assert device.answers() == []
    land(device, taken[0])
    more = device.session.proceed(device.now)
    assert ids(more) == [4]
    assert device.session.held is Held.RECEIVE_MAXIMUM
    land(device, taken[1], taken[2])
    assert ids(device.session.proceed(device.now)) == [5]
    assert device.session.held is None
    assert [one.kind for one in device.answers()] == [wire.PUBACK] * 3 + [wire.PINGRESP]


def test_within_the_receive_maximum_pings_are_answered() -> None:
    device = Device(receive_maximum=3)
    device.sends(*(device.publish(n) for n in range(1, 4)), wire.PINGREQ, device.publish(0))
    assert device.session.held is None
    assert [one.kind for one in device.answers()] == [wire.PINGRESP]


def test_the_bound_over_all() -> None:
    device = Device(max_buffered_bytes=OVERHEAD + 1)
    taken = device.sends(device.publish(1), device.publish(0), wire.PINGREQ, device.publish(2))
    assert [type(one) for one in taken] == [Publish, Dropped]
    assert device.session.held is Held.BUDGET
    assert [one.kind for one in device.answers()] == [wire.PINGRESP]
    land(device, taken[0])
    assert ids(device.session.proceed(device.now)) == [2]


def test_a_large_packet_counts_from_its_beginning() -> None:
    device = Device(max_buffered_bytes=150_000)
    whole = device.publish(1, b"x" * 100_000)
    assert device.sends(whole[:50_000]) == []
    assert device.budget.used > 100_000
    (publish,) = device.sends(whole[50_000:])
    assert device.budget.used == 100_000 + OVERHEAD
    land(device, publish)
    assert device.budget.used == 0
    device.sends(whole[:50_000])
    device.session.gone()
    assert device.budget.used == 0


def test_keep_alive() -> None:
    device = Device(keep_alive=10)
    device.now += 14.9
    assert device.session.check(device.now) == []
    device.sends(wire.PINGREQ)
    device.now += 15.1
    assert device.session.check(device.now) == [Closed("keep-alive")]
    assert [(one.kind, one.body) for one in device.answers()] == [(wire.PINGRESP, b""), (wire.DISCONNECT, b"\x8d")]


def test_without_keep_alive_nobody_is_closed() -> None:
    device = Device(keep_alive=0)
    assert device.session.check(device.now + 1e9) == []


def test_while_a_session_is_held_its_clock_stands_still() -> None:
    device = Device(keep_alive=10, receive_maximum=1)
    (publish, *_) = device.sends(device.publish(1), device.publish(2))
    device.now += 1_000
    assert device.session.check(device.now) == []
    land(device, publish)
    device.session.proceed(device.now)
    assert device.session.check(device.now + 14) == []
    assert device.session.check(device.now + 16) != []


def test_who_does_not_connect_is_closed() -> None:
    device = Device(connect=False)
    assert device.session.check(device.now + CONNECT_SECONDS - 0.1) == []
    assert device.session.check(device.now + CONNECT_SECONDS + 0.1) == [Closed("no CONNECT")]
    assert device.answers() == []


def test_what_comes_behind_connect_waits_for_its_answer() -> None:
    device = Device(connect=False)
    effects = device.sends(wire.connect("c", "d"), device.publish(1))
    assert [type(one) for one in effects] == [Arrived]
    assert device.session.held is Held.OPENING
    assert device.sends(device.publish(2)) == []
    assert isinstance(effects[0], Arrived)
    device.session.accept("d", Kept(7), Client("d", "c"), False, effects[0].connect)
    assert ids(device.session.proceed(device.now)) == [1, 2]


@pytest.mark.parametrize(("version", "answer"), [(4, b"\0\x05"), (5, b"\0\x87\0")])
def test_a_refused_connect(version: int, answer: bytes) -> None:
    device = Device(connect=False)
    device.sends(wire.connect("c", version=version))
    assert device.session.refuse(Reason.NOT_AUTHORIZED, "no login") == [Closed("no login")]
    assert [one.body for one in device.answers()] == [answer]
    assert device.sends(device.publish(1)) == []


@pytest.mark.parametrize("version", [4, 5])
def test_subscriptions(version: int) -> None:
    device = Device(version=version)
    denied = 0x87 if version == 5 else 0x80
    mine, others = "devices/command/d/+", "devices/command/e/+"
    effects = device.sends(wire.subscribe(1, [(mine, 2), (others, 1), ("#", 1)], version=version))
    assert effects == [Listens("d")]
    (suback,) = device.answers()
    assert suback.body[-3:] == bytes((1, denied, denied))
    assert device.sends(wire.subscribe(2, [("devices/attributes/get/d", 0)], version=version)) == []
    device.answers()
    assert device.sends(wire.unsubscribe(3, [mine, others], version=version)) == []
    (unsuback,) = device.answers()
    assert unsuback.body[2:] == (b"\0\0\x11" if version == 5 else b"")
    assert device.sends(wire.unsubscribe(4, ["devices/attributes/get/d"], version=version)) == [Deafened("d")]


def test_shared_and_malformed_filters() -> None:
    device = Device()
    device.sends(wire.subscribe(1, [("$share/g/devices/command/d/+", 1), ("devices/#/x", 1), ("", 0)]))
    (suback,) = device.answers()
    assert suback.body[-3:] == b"\x9e\x8f\x8f"


def downlink(n: int = 0, device: str = "d") -> Downlink:
    return Downlink(device, f"devices/command/{device}/m{n}", b"%d" % n, f"m{n}")


def test_downlink_qos_1_is_receipted_by_the_puback() -> None:
    device = Device()
    device.sends(wire.subscribe(1, [("devices/command/d/+", 1)]))
    device.answers()
    assert device.session.deliver(downlink()) == []
    (sent,) = device.answers()
    assert (sent.kind, sent.flags) == (wire.PUBLISH, 2)
    assert device.sends(wire.puback(1)) == [Receipt(downlink(), 1)]
    assert device.sends(wire.puback(1)) == []  # once


def test_downlink_qos_0_is_receipted_when_written() -> None:
    device = Device()
    device.sends(wire.subscribe(1, [("devices/command/d/+", 0)]))
    device.answers()
    assert device.session.deliver(downlink()) == [Receipt(downlink(), 0)]
    (sent,) = device.answers()
    assert (sent.kind, sent.flags) == (wire.PUBLISH, 0)


def test_downlink_that_a_device_refuses_has_no_receipt() -> None:
    device = Device()
    device.sends(wire.subscribe(1, [("devices/command/d/+", 1)]))
    device.session.deliver(downlink())
    assert device.sends(wire.puback(1, 0x83)) == []


def test_downlink_without_a_subscription_is_not_sent() -> None:
    device = Device()
    assert device.session.deliver(downlink()) == []
    assert device.answers() == []


def test_downlink_in_flight_and_its_queue_are_bounded() -> None:
    device = Device(properties=b"\x21\0\x02")
    device.sends(wire.subscribe(1, [("devices/command/d/+", 1)]))
    device.answers()
    for n in range(QUEUED + 5):
        device.session.deliver(downlink(n))
    assert len(device.answers()) == 2
    assert device.session.outbox.dropped == 3
    assert device.sends(wire.puback(1)) == [Receipt(downlink(0), 1)]
    (third,) = device.answers()
    assert third.body.endswith(b"2")


def test_downlink_above_the_clients_packet_size_is_dropped() -> None:
    device = Device(properties=b"\x27\0\0\0\x10")
    device.sends(wire.subscribe(1, [("devices/command/d/+", 1)]))
    device.answers()
    device.session.deliver(downlink())
    assert device.answers() == []
    assert device.session.outbox.dropped == 1


def test_freeze() -> None:
    device = Device()
    device.session.freeze(True)
    assert device.session.held is Held.FROZEN
    assert device.sends(device.publish(1)) == []
    device.session.freeze(False)
    assert ids(device.session.proceed(device.now)) == [1]


@pytest.mark.parametrize(("version", "answer"), [(4, []), (5, [b"\x8b"])])
def test_end(version: int, answer: list[bytes]) -> None:
    device = Device(version=version)
    assert device.session.end("bridge stops", Reason.SERVER_SHUTTING_DOWN) == [Closed("bridge stops")]
    assert [one.body for one in device.answers()] == answer
    assert device.session.end("bridge stops", Reason.SERVER_SHUTTING_DOWN) == []


@given(st.lists(st.sampled_from(["publish", "qos0", "ping", "land", "subscribe", "deliver"]), max_size=60))
@hypothesis_settings(max_examples=200, deadline=None)
def test_whatever_happens_every_publish_is_acknowledged_once_and_in_order(steps: list[str]) -> None:
    device = Device(receive_maximum=4, max_buffered_bytes=6 * (OVERHEAD + 1))
    sent: list[int] = []
    in_kafka: list[Effect] = []
    acknowledged: list[int] = []
    taken: list[Publish] = []
    for step in [*steps, *["land"] * (len(steps) + 1)]:
        effects: list[Effect] = []
        if step == "publish":
            sent.append(len(sent) + 1)
            effects = device.sends(device.publish(sent[-1]))
        elif step == "qos0":
            effects = device.sends(device.publish(0))
        elif step == "ping":
            effects = device.sends(wire.PINGREQ)
        elif step == "subscribe":
            effects = device.sends(wire.subscribe(1, [("devices/command/d/+", 1)]))
        elif step == "deliver":
            effects = device.session.deliver(downlink())
        elif in_kafka:
            land(device, in_kafka.pop(0))
            effects = device.session.proceed(device.now)
        new = [one for one in effects if isinstance(one, Publish)]
        taken += new
        in_kafka += new
        assert device.session.unacknowledged <= 4
        assert device.budget.used == sum(one.cost for one in in_kafka if isinstance(one, Publish))
        acknowledged += device.pubacks()
    assert [one.packet_id for one in taken if one.qos] == sent
    assert acknowledged == sent

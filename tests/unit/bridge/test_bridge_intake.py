"""From publishes to raw records and back, with a producer that only notes."""

from __future__ import annotations

from typing import Any

from connectors.mqtt_bridge.budget import Budget
from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.downlink import Downlink, Receipt
from connectors.mqtt_bridge.identity import Trust
from connectors.mqtt_bridge.intake import Intake
from connectors.mqtt_bridge.publish import Publish
from tpstream.bus.envelope import Kind, RawHeader, Refusal, WayIn
from tpstream.bus.partitioner import partition_of


class Notes:
    """In the producer's place: what was added, in order."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []

    def add(self, *record: Any) -> int:
        self.records.append(record)
        return int(record[1])


class Device:
    way_in = WayIn.ENDPOINT
    number = 7
    login: str | None = "d"

    def __init__(self) -> None:
        self.heard = 0

    def landed(self) -> None:
        self.heard += 1


def made() -> tuple[Intake, Notes, Budget]:
    budget = Budget(10_000)
    intake = Intake(Trust(login=True), WayIn.ENDPOINT, 8, budget, Counts(), lambda: 1_700)
    notes = Notes()
    intake.producer = notes  # type: ignore[assignment]
    return intake, notes, budget


def publish(source: Device, topic: str = "devices/d/telemetry", qos: int = 1) -> Publish:
    one = Publish(topic, b"x", qos, packet_id=qos)
    one.source = source
    return one


def header(record: tuple[Any, ...]) -> RawHeader:
    return RawHeader.unpack(dict(record[4])["tp"])


def test_sequences_rise_by_one_per_partition_over_all_kinds() -> None:
    intake, notes, _ = made()
    device, other = Device(), Device()
    other.login = next(f"e{n}" for n in range(100) if partition_of(b"e%d" % n, 8) != partition_of(b"d", 8))
    intake.connected(device, "d")
    intake.publish(publish(device))
    intake.connected(other, other.login)
    intake.publish(publish(device, "nonsense"))
    intake.receipt(device, Receipt(Downlink("d", "devices/command/d/m", b"", "m"), 1))
    intake.disconnected(device, "d", "disconnect")
    mine = [one for one in notes.records if one[1] == partition_of(b"d", 8)]
    assert [header(one).sequence for one in mine] == [1, 2, 3, 4, 5]
    kinds = [Kind.CONNECTED, Kind.PUBLISH, Kind.REFUSED, Kind.RECEIPT, Kind.DISCONNECTED]
    assert [header(one).kind for one in mine] == kinds
    assert {header(one).session for one in mine} == {7}
    assert {one[5] for one in mine} == {1_700}


def test_a_receipt_without_a_message_id_is_nobodys() -> None:
    intake, notes, _ = made()
    intake.receipt(Device(), Receipt(Downlink("d", "devices/command/d/m", b""), 1))
    assert notes.records == []


def test_a_source_hears_once_for_all_that_landed_together() -> None:
    intake, notes, budget = made()
    first, second, silent = Device(), Device(), Device()
    for one in (publish(first), publish(first), publish(second), publish(silent, qos=0)):
        budget.take(one.cost)
        intake.publish(one)
    intake.connected(first, "d")
    intake.delivered("raw", 0, [one[6] for one in notes.records], 0)
    assert (first.heard, second.heard, silent.heard) == (1, 1, 0)
    assert all(one[6].landed for one in notes.records[:4])
    assert budget.used == 0


def test_a_foreign_topic_is_refused_and_keyed_by_nobody() -> None:
    intake, notes, _ = made()
    one = publish(Device(), "devices/other/telemetry")
    intake.publish(one)
    ((_, partition, key, value, *_),) = notes.records
    assert (key, value, partition) == (b"", b"x", partition_of(b"", 8))
    assert header(notes.records[0]).refusal is Refusal.IDENTITY
    assert one.reason == 0x87


def test_on_hold_notes_wait() -> None:
    intake, notes, _ = made()
    intake.hold()
    intake.connected(Device(), "d")
    intake.disconnected(Device(), "d", "disconnect")
    assert notes.records == []
    intake.release()
    assert [header(one).kind for one in notes.records] == [Kind.CONNECTED, Kind.DISCONNECTED]


def test_the_budget_wakes_in_order_and_only_as_far_as_there_is_room() -> None:
    budget = Budget(10)
    budget.take(10)
    woken: list[str] = []

    def first() -> None:
        woken.append("first")
        budget.take(10)

    def second() -> None:
        woken.append("second")

    budget.wait(first)
    budget.wait(second)
    budget.wake()
    assert woken == []
    budget.give_back(10)
    budget.wake()
    assert woken == ["first"]
    budget.forget(second)
    budget.give_back(10)
    budget.wake()
    assert woken == ["first"]

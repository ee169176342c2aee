"""What decode makes of each kind of raw record."""

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from agents.decode import decode
from tables.repeats import repeats_table
from tables.status import device_status_table
from tpstream.bus import topics
from tpstream.bus.batch import Batch
from tpstream.bus.envelope import ORIGIN, DerivedHeader, Identity, Kind, RawHeader, Refusal, WayIn, pack_origin
from tpstream.bus.position import Life, Position
from tpstream.devices.catalog import Catalog
from tpstream.errors import Unavailable
from tpstream.lua.pool import Call, Failed, Outcome, Result
from tpstream.lua.sandbox import Budget, Sandbox
from tpstream.messages import DeadLetter, Device, DeviceStatus, Document, Release, Response
from tpstream.observability import metrics
from tpstream.settings import Settings
from tpstream.testing import LIFE, FakeRecord, batch_of, sent

NOW = 1_700_000_000_000
HOURS = 3_600_000


class Scripts:
    """Scripts run in this process: for tests that need no budgets."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    async def run(self, calls: Sequence[Call]) -> list[Outcome]:
        self.batches.append(len(calls))
        outcomes: list[Outcome] = []
        for call in calls:
            status, text = Sandbox(call.source, Budget()).call(call.entry.encode(), call.msg, call.topic.encode())
            outcomes.append(Result(text) if status == 0 else Failed("script", text.decode()))
        return outcomes


class House:
    """A decode agent with its catalog, scripts and table."""

    def __init__(self, *, register: bool = True, devices: Sequence[str] = (), **settings: Any) -> None:
        self.settings = Settings(register_on_first_sight=register, **settings)
        self.catalog = Catalog(self.settings)
        self.scripts = Scripts()
        self.offset = 0
        device_status_table.partitions.clear()
        repeats_table.partitions.clear()
        for number in devices:
            self.catalog.take(topics.config_devices.name, number, topics.config_devices.encode(Device(number)))

    def apply(self, version: str, source: str) -> str:
        """Put a release into force: profile `bin` for bin-* with that script A."""
        profile = f"name: bin\ndevices: ['bin-*']\nscripts: {{A: six.lua}}\n# {version}\n"
        for topic, name, text, file in (
            (topics.config_profiles, "bin", profile, "profiles/bin.yaml"),
            (topics.config_scripts, "six.lua", source, "scripts/six.lua"),
        ):
            document = topic.encode(Document(name, version, text, file))
            self.catalog.take(topic.name, f"{name}@{version}", document)
        release = Release("app", version, len(version), {"bin": version}, {"six.lua": version})
        self.catalog.take(topics.config_releases.name, "app", topics.config_releases.encode(release))
        self.catalog.settle()
        return self.catalog.release_version

    def record(
        self,
        value: bytes = b"",
        device: str = "d1",
        topic: str | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        at: int = NOW,
        **tp: Any,
    ) -> FakeRecord:
        """The next raw record; a publish of telemetry unless told otherwise."""
        self.offset += 1
        tp.setdefault("kind", Kind.PUBLISH)
        topic = f"devices/{device}/telemetry" if topic is None else topic
        packed = RawHeader(**tp).pack()
        return FakeRecord(
            value, self.offset, at, device.encode(), (("topic", topic.encode()), ("tp", packed), *headers)
        )

    async def decode(self, *records: FakeRecord) -> Batch:
        batch = batch_of(
            topics.uplink_raw,
            records,
            services=SimpleNamespace(settings=self.settings, catalog=self.catalog, scripts=self.scripts),
            tables=(device_status_table, repeats_table),
        )
        await decode(batch)
        device_status_table.of(batch).accept()
        repeats_table.of(batch).accept()
        return batch


def letters(batch: Batch) -> list[tuple[str, str, str]]:
    return [(d.stage, d.reason, d.device) for d in sent(batch, topics.dead_letters)]


def keys(batch: Batch) -> list[tuple[str, list[str]]]:
    return [(t.device, [p.key for p in t.points]) for t in sent(batch, topics.uplink_telemetry)]


async def test_telemetry_becomes_points_in_order_with_its_position_and_time() -> None:
    house = House()
    batch = await house.decode(house.record(b'{"a":1,"b":2}'), house.record(b'{"c":3}', "d2", at=NOW + 1))
    assert keys(batch) == [("d1", ["a", "b"]), ("d2", ["c"])]
    out = [o for o in batch.outgoing if o.topic == topics.uplink_telemetry.name]
    assert [(o.key, o.timestamp, o.partition) for o in out] == [(b"d1", NOW, 0), (b"d2", NOW + 1, 0)]
    assert not letters(batch)


async def test_telemetry_goes_out_as_by_the_batchs_own_send() -> None:
    house = House()
    record = house.record(b'{"a":1,"b":2}')
    batch = await house.decode(record)
    (said,) = sent(batch, topics.uplink_telemetry)
    other = batch_of(topics.uplink_raw, [record])
    other.send(topics.uplink_telemetry, said, key="d1", position=other.position(record), timestamp=NOW, partition=0)
    assert [o for o in batch.outgoing if o.topic == topics.uplink_telemetry.name] == other.outgoing


async def test_a_dead_letter_keeps_the_message_and_says_why() -> None:
    house = House()
    await house.decode(house.record())
    batch = await house.decode(house.record(b'{"ts":"never","values":{"a":1}}'))
    (letter,) = sent(batch, topics.dead_letters)
    assert (letter.stage, letter.reason, letter.topic) == ("decode", "time", "devices/d1/telemetry")
    assert letter.payload == b'{"ts":"never","values":{"a":1}}'
    assert (letter.source_life, letter.source_partition, letter.source_offset) == (LIFE.hex(), 0, 2)
    assert letter.id == f"decode-{LIFE.hex()[:12]}-0-2-0"
    assert "never" in letter.detail


async def test_each_bad_element_of_a_history_is_a_dead_letter_of_its_own() -> None:
    house = House()
    batch = await house.decode(
        house.record(b'[{"ts":1,"values":{"a":1}},5,{"ts":"x","values":{}},{"ts":2,"values":{"b":1}}]')
    )
    assert keys(batch) == [("d1", ["a", "b"])]
    found: list[DeadLetter] = sent(batch, topics.dead_letters)
    assert [(d.reason, d.source_index) for d in found] == [("form", 1), ("time", 2)]
    assert len({d.id for d in found}) == 2


async def test_what_is_older_than_the_retention_goes_to_the_late_topic_only() -> None:
    house = House(retention_days=1)
    batch = await house.decode(house.record(f'{{"ts":{NOW - 25 * HOURS},"values":{{"a":1,"b":"x"}}}}'.encode()))
    assert not sent(batch, topics.uplink_telemetry)
    late = sent(batch, topics.late)
    assert [(x.device, x.key, x.number, x.text, x.reason) for x in late] == [
        ("d1", "a", 1.0, "", "retention"),
        ("d1", "b", None, "x", "retention"),
    ]


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("devices/d1/nonsense", "topic"),
        ("devices/d2/telemetry", "identity"),
        ("devices/d1/attributes/7", "topic"),
        ("devices/d1/event/7", "topic"),
        ("gateway/d1/telemetry", "topic"),
        ("devices/d1/command/response/", "message_id"),
    ],
)
async def test_topics_that_end_as_dead_letters(topic: str, reason: str) -> None:
    house = House()
    batch = await house.decode(house.record(b"{}", topic=topic))
    assert letters(batch) == [("decode", reason, "d1")]


async def test_what_the_bridge_refused_is_a_dead_letter() -> None:
    house = House()
    size = (("tp-size", b"10000000 abc"),)
    batch = await house.decode(
        house.record(b"x", "", "devices/d9/telemetry", kind=Kind.REFUSED, refusal=Refusal.IDENTITY),
        house.record(b"x", "d1", "foo/bar", kind=Kind.REFUSED, refusal=Refusal.TOPIC),
        house.record(b"x" * 70_000, "d1", headers=size, kind=Kind.REFUSED, refusal=Refusal.SIZE),
    )
    assert letters(batch) == [("bridge", "identity", ""), ("bridge", "topic", "d1"), ("bridge", "size", "d1")]
    large = sent(batch, topics.dead_letters)[-1]
    assert len(large.payload) == 65_536
    assert "10000000" in large.detail


async def test_an_answer_to_a_command_and_the_receipts_before_it() -> None:
    house = House()
    message_id = (("message_id", b"c1"),)
    batch = await house.decode(
        house.record(headers=message_id, kind=Kind.RECEIPT, qos=0),
        house.record(headers=message_id, kind=Kind.RECEIPT, qos=1),
        house.record(headers=message_id, kind=Kind.RECEIPT, qos=1, way_in=WayIn.BROKER),
        house.record(b'{"result":0}', topic="devices/d1/command/response/c1"),
        house.record(b'{"result":1}', topic="devices/d1/attributes/set/response/c2"),
        house.record(b"?", topic="devices/d1/command/response/c3"),
    )
    assert sent(batch, topics.uplink_response) == [
        Response("d1", "c1", "sent", ts=NOW),
        Response("d1", "c1", "receipt", ts=NOW),
        Response("d1", "c1", "sent", ts=NOW),
        Response("d1", "c1", "response", 0, '{"result":0}', NOW),
        Response("d1", "c2", "response", 1, '{"result":1}', NOW),
    ]
    assert letters(batch) == [("decode", "response", "d1")]


async def test_only_a_change_of_online_status_is_said() -> None:
    house = House()

    def connected(session: int, at: int) -> FakeRecord:
        return house.record(b'{"reason":"connected"}', kind=Kind.CONNECTED, session=session, at=at)

    def disconnected(session: int, at: int) -> FakeRecord:
        return house.record(b'{"reason":"keep-alive"}', kind=Kind.DISCONNECTED, session=session, at=at)

    history = [
        disconnected(1, NOW),  # never connected: no change
        connected(1, NOW + 1),
        connected(2, NOW + 2),  # take-over: the newest owns the status
        disconnected(1, NOW + 3),
        disconnected(2, NOW + 4),
        disconnected(2, NOW + 5),
        connected(3, NOW + 6),
    ]
    batch = await house.decode(*history)
    assert sent(batch, topics.device_status) == [
        DeviceStatus("d1", True, NOW + 1, "connected"),
        DeviceStatus("d1", False, NOW + 4, "keep-alive"),
        DeviceStatus("d1", True, NOW + 6, "connected"),
    ]
    again = await house.decode(*history)
    assert not sent(again, topics.device_status), "what is read again changes nothing"


async def test_ticks_and_configuration_are_passed_on_in_order() -> None:
    house = House()
    version = house.apply("1", "function decode(m) return {v=1} end")
    configuration = json.dumps({"release": version}).encode()
    batch = await house.decode(
        house.record(b'{"a":1}'),
        house.record(device="", kind=Kind.TICK, way_in=WayIn.OWNER),
        house.record(configuration, "", kind=Kind.CONFIGURATION, way_in=WayIn.OWNER),
        house.record(b'{"b":1}'),
    )

    def kinds(topic: str) -> list[int]:
        return [o.headers[0][1][1] for o in batch.outgoing if o.topic == topic]

    assert kinds(topics.uplink_telemetry.name) == [Kind.PUBLISH, Kind.TICK, Kind.CONFIGURATION, Kind.PUBLISH]
    assert kinds(topics.uplink_response.name) == [Kind.TICK, Kind.CONFIGURATION]
    assert {o.partition for o in batch.outgoing if o.topic != topics.config_devices.name} == {0}


async def test_scripts_run_once_per_batch_and_keep_the_order() -> None:
    house = House()
    house.apply("1", 'function decode(m) return {t = string.unpack(">i2", m) / 10} end')
    batch = await house.decode(
        house.record(b"\x00\xd7", "bin-1"),
        house.record(b'{"a":1}', "d1"),
        house.record(b"\x00", "bin-1"),
        house.record(b"\x00\xd8", "bin-2"),
        house.record(b"", "bin-2"),
    )
    assert keys(batch) == [("bin-1", ["t"]), ("d1", ["a"]), ("bin-2", ["t"])]
    assert letters(batch) == [("decode", "script", "bin-1"), ("decode", "empty", "bin-2")]
    assert house.scripts.batches == [3]


@pytest.mark.parametrize(
    ("result", "reason"),
    [('"hello"', "json"), ('"7"', "form"), ('"[1]"', "form"), ('""', "empty"), ("7", "script"), ("nil", "script")],
)
async def test_a_scripts_result_that_is_no_telemetry(result: str, reason: str) -> None:
    house = House()
    house.apply("1", f"function decode(m) return {result} end")
    assert letters(await house.decode(house.record(b"x", "bin-1"))) == [("decode", reason, "bin-1")]


async def test_a_record_is_decoded_by_the_release_that_stood_before_it_also_when_read_again() -> None:
    house = House()

    def configuration(version: str) -> FakeRecord:
        value = json.dumps({"release": version}).encode()
        return house.record(value, "", kind=Kind.CONFIGURATION, way_in=WayIn.OWNER)

    first = house.apply("1", "function decode(m) return {one=1} end")
    second = house.apply("2", "function decode(m) return {two=2} end")
    history = [
        configuration(first),
        house.record(b"x", "bin-1"),
        configuration(second),
        house.record(b"x", "bin-1"),
    ]
    expected = [("bin-1", ["one"]), ("bin-1", ["two"])]
    assert keys(await house.decode(*history)) == expected
    assert keys(await house.decode(*history)) == expected
    assert keys(await house.decode(history[1])) == expected[:1]
    assert keys(await house.decode(history[3])) == expected[1:]
    await house.decode(history[0])
    assert keys(await house.decode(house.record(b"x", "bin-1"))) == expected[1:], "an old announcement, read again"


async def test_a_release_announced_by_a_worker_that_has_lost_the_partition_is_nothing() -> None:
    house = House()

    def configuration(version: str, epoch: int) -> FakeRecord:
        value = json.dumps({"release": version}).encode()
        return house.record(value, "", kind=Kind.CONFIGURATION, way_in=WayIn.OWNER, session=epoch)

    first = house.apply("1", "function decode(m) return {one=1} end")
    second = house.apply("2", "function decode(m) return {two=2} end")
    history = [
        configuration(first, 1),
        house.record(b"x", "bin-1"),
        configuration(second, 2),
        configuration(first, 1),  # the first owner wakes up
        house.record(b"x", "bin-1"),
    ]
    for _ in range(2):  # and when it is read again
        batch = await house.decode(*history)
        assert keys(batch) == [("bin-1", ["one"]), ("bin-1", ["two"])]
        passed_on = [o for o in batch.outgoing if o.topic == topics.uplink_telemetry.name]
        assert [Kind(dict(o.headers)["tp"][1]) for o in passed_on].count(Kind.CONFIGURATION) == 2


async def test_an_unknown_device_is_registered_once_where_the_setting_says_so() -> None:
    house = House(tenant="farm")
    batch = await house.decode(house.record(b'{"a":1}'), house.record(b'{"a":2}'))
    assert sent(batch, topics.config_devices) == [Device("d1", "", "farm", NOW, True)]
    assert not sent(await house.decode(house.record(b'{"a":3}')), topics.config_devices)


async def test_an_unknown_device_is_a_dead_letter_elsewhere() -> None:
    house = House(register=False, devices=["d2"])
    batch = await house.decode(house.record(b'{"a":1}'), house.record(b'{"a":2}', "d2"))
    assert keys(batch) == [("d2", ["a"])]
    assert letters(batch) == [("decode", "identity", "d1")]
    assert not sent(batch, topics.config_devices)


async def test_bytes_that_are_no_text_stop_nobody() -> None:
    house = House()
    broken = house.record(b"{}", identity=Identity.LOGIN)
    broken.key = b"\xff"
    batch = await house.decode(broken, house.record(b'{"a":1}'))
    assert keys(batch) == [("d1", ["a"])]
    assert [reason for _, reason, _ in letters(batch)] == ["identity"]


def derived(batch: Batch, topic: topics.Topic[Any]) -> list[DerivedHeader]:
    return [DerivedHeader.unpack(dict(o.headers)["tp"]) for o in batch.outgoing if o.topic == topic.name]


def repeats() -> dict[str, float]:
    return {source: metrics.REPEATS.labels(source)._value.get() for source in ("bridge", "device")}


async def test_what_the_bridge_produced_again_is_dropped_and_counted_of_whatever_kind() -> None:
    house, before = House(), repeats()
    records = [
        house.record(b'{"a":1}', incarnation=7, sequence=1),
        house.record(b"?", topic="devices/d1/nonsense", incarnation=7, sequence=2),
        house.record(b'{"reason":"connected"}', kind=Kind.CONNECTED, incarnation=7, sequence=3),
        house.record(headers=(("message_id", b"c1"),), kind=Kind.RECEIPT, incarnation=7, sequence=4),
    ]
    first = await house.decode(*records)
    for record in records:
        house.offset += 1
        record.offset = house.offset
    second = await house.decode(*records, house.record(b'{"b":1}', incarnation=7, sequence=5))
    assert (len(first.outgoing), [o.topic for o in second.outgoing]) == (5, [topics.uplink_telemetry.name])
    assert repeats() == {"bridge": before["bridge"] + 4, "device": before["device"]}


async def test_what_a_device_sends_again_is_dropped_and_counted_unless_the_setting_keeps_it() -> None:
    for setting, expected in (("drop", [["a"], ["b"]]), ("keep", [["a"], ["a"], ["b"]])):
        house, before = House(mqtt_repeats=setting), repeats()["device"]
        batch = await house.decode(
            house.record(b'{"a":1}', qos=1, session=1, packet_id=9),
            house.record(b'{"a":1}', qos=1, session=1, packet_id=9, dup=True),
            house.record(b'{"b":1}', qos=1, session=1, packet_id=10),
        )
        assert [found for _, found in keys(batch)] == expected
        assert repeats()["device"] - before == 3 - len(expected)


async def test_what_is_read_again_after_a_crash_says_the_same_again() -> None:
    house = House(devices=["d1"])
    message = {"qos": 1, "session": 1, "packet_id": 9, "incarnation": 7}
    records = [
        house.record(b'{"a":1}', sequence=1, **message),
        house.record(b'{"a":1}', sequence=1, **message),
        house.record(b'{"a":1}', sequence=2, dup=True, **message),
        house.record(b'{"b":1}', sequence=3, qos=1, session=1, packet_id=10, incarnation=7),
    ]
    once = await house.decode(*records)
    assert keys(once) == [("d1", ["a"]), ("d1", ["b"])]
    for start in range(len(records)):
        again = await house.decode(*records[start:])
        assert again.outgoing == [o for o in once.outgoing if derived_offset(o) >= records[start].offset]


def derived_offset(outgoing: Any) -> int:
    return DerivedHeader.unpack(dict(outgoing.headers)["tp"]).position.offset


async def test_a_replay_stands_where_it_is_and_began_where_it_first_arrived() -> None:
    house = House()
    there = Position(Life(b"1" * 16), 3, 44, 0)
    header = ((ORIGIN, pack_origin(there)),)
    batch = await house.decode(
        house.record(b'{"a":1}', headers=header, way_in=WayIn.REPLAY),
        house.record(b'[{"ts":"x","values":{}},{"ts":"y","values":{}}]', headers=header, way_in=WayIn.REPLAY),
        house.record(b'{"a":1}', headers=header),  # not by a replay: nobody's word
    )
    told = derived(batch, topics.uplink_telemetry)
    assert [header.origin for header in told] == [there, Position(LIFE, 0, 3)]
    assert [header.position for header in told] == [Position(LIFE, 0, 1), Position(LIFE, 0, 3)]
    found = sent(batch, topics.dead_letters)
    assert [x.id for x in found] == [f"decode-{there.at(n).identity()}" for n in (0, 1)]
    assert {(x.source_life, x.source_partition, x.source_offset) for x in found} == {(there.life.hex(), 3, 44)}
    assert [h.position for h in derived(batch, topics.dead_letters)] == [Position(LIFE, 0, 2, n) for n in (0, 1)]


async def test_a_release_that_is_not_known_yet_is_asked_for_again_when_the_batch_is_tried_again() -> None:
    source = "function decode(msg, topic) return {scripted = 1} end"
    version = House(devices=["bin-1"]).apply("v1", source)
    house = House(devices=["bin-1"])  # the catalog of a worker that has not read the release yet
    records = (
        house.record(json.dumps({"release": version}).encode(), "", topic="", kind=Kind.CONFIGURATION, session=1),
        house.record(b'{"plain": 1}', "bin-1"),
    )
    for _ in range(2):
        with pytest.raises(Unavailable):
            await house.decode(*records)
        device_status_table.at(0).undo()
        repeats_table.at(0).undo()
    house.apply("v1", source)
    assert keys(await house.decode(*records)) == [("bin-1", ["scripted"])]

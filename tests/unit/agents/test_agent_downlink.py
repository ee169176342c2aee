"""The downlink agent: a request becomes a publish, and what the device says its end."""

from types import MappingProxyType, SimpleNamespace

import pytest

from agents.downlink import follow_commands
from agents.rules import apply_rules
from agents.windows import fold_windows
from tables.alarms import alarms
from tables.commands import PARTITION, commands
from tables.windows import windows as windows_table
from tpstream.app import app
from tpstream.bus import topics
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.position import Position
from tpstream.devices.profiles import Profile, ScriptRef
from tpstream.errors import TpstreamError
from tpstream.lua.pool import Failed, Result
from tpstream.messages import CommandRequest, DeviceStatus, Point, Response, Telemetry
from tpstream.rules.definition import parse
from tpstream.settings import Settings
from tpstream.testing import LIFE, FakeRecord, batch_of, make_batch, sent
from tpstream.windows.definition import window

SCRIPT = ScriptRef("fan.lua@1", "fan.lua", "1", "function encode(msg, topic) return msg end")
PROFILES = {"binary": Profile("binary", scripts=MappingProxyType({"E": SCRIPT}))}


class Scripts:
    """Answers calls as it was told, and keeps them."""

    def __init__(self, *results):
        self.results, self.calls = list(results), []

    async def run(self, calls):
        self.calls.append(calls)
        return [self.results.pop(0) for _ in calls]


def services(scripts=None):
    return SimpleNamespace(
        settings=Settings(command_timeout=10.0, command_attempts=2, command_expiry=3600.0),
        catalog=SimpleNamespace(profile_of=lambda device: PROFILES.get(device, Profile("default"))),
        scripts=scripts,
    )


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    monkeypatch.setattr(commands, "partitions", {})


def request(id="a", device="d1", **more):
    return CommandRequest(id, device, "fan", 1000, '{"on":true}', **more)


async def handle(topic, *values, at=1000, offset=0, scripts=None):
    batch = make_batch(
        topic,
        values,
        services=services(scripts),
        tables=[commands],
        timestamps=[at + n for n in range(len(values))],
        first_offset=offset,
    )
    await follow_commands(batch)
    commands.at(0).accept()
    return batch


async def tick(at, topic=topics.uplink_response):
    position = Position(LIFE, 0, at)
    record = FakeRecord(b"", at, at, b"", (("tp", DerivedHeader(Kind.TICK, position, position).pack()),))
    batch = batch_of(topic, [record], services=services(), tables=[commands])
    await follow_commands(batch)
    commands.at(0).accept()
    return batch


def states(batch):
    return [str(status.state) for status in sent(batch, topics.command_status)]


def published(batch):
    return [
        (out.key, out.value, dict(out.headers)["topic"], dict(out.headers)["message_id"], out.partition)
        for out in batch.outgoing
        if out.topic == topics.downlink_mqtt.name
    ]


async def test_a_request_is_sent_and_the_answer_ends_it():
    batch = await handle(topics.downlink_command, request())
    assert states(batch) == ["QUEUED", "ENCODED", "ENCODED"]
    body = b'{"method":"fan","params":{"on":true}}'
    assert published(batch) == [(b"d1", body, b"devices/command/d1/a", b"a", 0)]
    told = Response("d1", "a", "response", 0, '{"result":0}', 1500)
    batch = await handle(topics.uplink_response, Response("d1", "a", "receipt"), told, at=1500)
    assert states(batch) == ["DELIVERED", "SUCCEEDED"]
    status = sent(batch, topics.command_status)[-1]
    assert (status.result, status.attempts, status.version, status.updated_at) == ('{"result":0}', 1, 5, 1501)
    assert commands.at(0).next_due() is None


async def test_ticks_time_it_out_after_its_attempts():
    await handle(topics.downlink_command, request())
    assert commands.at(0).next_due() == 11_000
    assert states(await tick(10_999)) == []
    batch = await tick(11_000)
    assert [p[3] for p in published(batch)] == [b"a"]
    assert states(await tick(21_000, topics.device_status)) == ["TIMED_OUT"]
    assert commands.at(0).get(PARTITION).clock == 21_000


async def test_what_was_lost_with_the_connection_is_sent_again_when_the_device_is_back():
    await handle(topics.device_status, DeviceStatus("d1", False, 900), at=900)
    assert published(await handle(topics.downlink_command, request())) == []
    batch = await handle(topics.device_status, DeviceStatus("d1", True, 2000), at=2000, offset=1)
    assert [p[3] for p in published(batch)] == [b"a"]


async def test_replays_change_nothing():
    for at, topic, value in [
        (4000, topics.downlink_command, request()),
        (5000, topics.device_status, DeviceStatus("d1", True, 5000)),
        (6000, topics.uplink_response, Response("d1", "a", "response", 0, "{}")),
    ]:
        assert (await handle(topic, value, at=at)).outgoing != []
        assert (await handle(topic, value, at=at)).outgoing == []


async def test_of_two_changes_in_one_millisecond_a_replay_of_the_first_does_not_undo_the_second():
    gone, back = DeviceStatus("d1", False, 900), DeviceStatus("d1", True, 900)
    await handle(topics.device_status, gone, back, at=900)
    await handle(topics.device_status, gone, at=900)
    assert published(await handle(topics.downlink_command, request())) != []


async def test_positions_of_one_topic_say_nothing_about_another():
    await handle(topics.downlink_command, request())
    await handle(topics.device_status, DeviceStatus("d1", True, 900), offset=500)
    batch = await handle(topics.uplink_response, Response("d1", "a", "response", 0, "{}"), offset=3)
    assert states(batch) == ["SUCCEEDED"]
    assert states(await handle(topics.downlink_command, request("b"), offset=2)) != []


async def test_an_answer_to_nothing_or_by_another_device_is_a_dead_letter():
    await handle(topics.downlink_command, request())
    batch = await handle(topics.uplink_response, Response("d2", "a", "response", 0, '{"result":0}'), at=1200, offset=7)
    (letter,) = sent(batch, topics.dead_letters)
    assert (letter.device, letter.stage, letter.reason, letter.payload) == (
        "d2",
        "downlink",
        "response",
        b'{"result":0}',
    )
    assert (letter.source_partition, letter.source_offset, letter.ts) == (0, 7, 1200)
    assert states(batch) == []


async def test_scripts_encode_all_requests_of_a_batch_in_one_call():
    scripts = Scripts(Result(b"\x01\x02"), Failed("script", "fan.lua:1: no"))
    batch = await handle(
        topics.downlink_command, request("a", "binary"), request("b", "d1"), request("c", "binary"), scripts=scripts
    )
    ((first, _),) = scripts.calls
    assert (first.script, first.source, first.entry) == (SCRIPT.id, SCRIPT.source, "encode")
    assert (first.msg, first.topic) == (b'{"method":"fan","params":{"on":true}}', "devices/command/binary/a")
    assert [(key, value) for key, value, *_ in published(batch)] == [
        (b"binary", b"\x01\x02"),
        (b"d1", b'{"method":"fan","params":{"on":true}}'),
    ]
    failed = [status for status in sent(batch, topics.command_status) if status.state == "FAILED"]
    assert [(status.id, status.result) for status in failed] == [("c", '{"reason":"script: fan.lua:1: no"}')]


async def test_the_same_request_twice_in_a_batch_is_one():
    batch = await handle(topics.downlink_command, request(), request(), request("b/"), request("b/"))
    assert states(batch) == ["QUEUED", "ENCODED", "ENCODED", "QUEUED", "FAILED"]


async def test_a_record_without_a_device_is_an_error():
    with pytest.raises(TpstreamError, match="without a device"):
        await handle(topics.downlink_command, request(device=""))
    with pytest.raises(TpstreamError, match="without a device"):
        await handle(topics.uplink_response, Response("", "a"))


async def test_requests_of_another_producer_need_no_header():
    record = FakeRecord(topics.downlink_command.encode(request()), 3, 1000, b"d1")
    batch = batch_of(topics.downlink_command, [record], services=services(), tables=[commands])
    await follow_commands(batch)
    assert states(batch) == ["QUEUED", "ENCODED", "ENCODED"]


async def test_the_loop_of_a_hot_greenhouse(monkeypatch):
    """Telemetry to windows to alarms to commands, record by record as they would lie in Kafka."""
    monkeypatch.setattr(windows_table, "partitions", {})
    monkeypatch.setattr(alarms, "partitions", {})
    monkeypatch.setattr(app, "windows", {"mean": window("mean", key="temperature", size="10s", idle="60s")})
    rule = parse(
        "rule: hot\nwindow: mean\nraise: {above: 30, for: 2}\nclear: {below: 28}\n"
        "on_raise: {command: fan, params: {on: true}}\non_clear: {command: fan, params: {on: false}}",
        "hot.yaml",
    )
    shared = services()
    shared.catalog.rules = lambda version=None: (rule,)

    def onward(batch, topic):
        """What was sent to a topic, as the next agent gets it."""
        records = [
            FakeRecord(out.value, n, out.timestamp, out.key, out.headers)
            for n, out in enumerate(batch.outgoing)
            if out.topic == topic.name
        ]
        return batch_of(topic, records, services=shared, tables=[alarms, commands])

    readings = [31.0, 33.0, 35.0, 31.0, 32.0, 27.0, 26.0, 25.0]
    told = [Telemetry("g1", (Point("temperature", n * 5000, value),)) for n, value in enumerate(readings)]
    batch = make_batch(
        topics.uplink_telemetry,
        told,
        tables=[windows_table],
        timestamps=[n * 5000 for n in range(len(told))],
    )
    await fold_windows(batch)
    evaluated = onward(batch, topics.windows)
    await apply_rules(evaluated)
    assert [str(alarm.state) for alarm in sent(evaluated, topics.alarms)] == ["active"]
    commanded = onward(evaluated, topics.downlink_command)
    await follow_commands(commanded)
    assert [value for _, value, *_ in published(commanded)] == [b'{"method":"fan","params":{"on":true}}']
    (on,) = published(commanded)
    answered = await handle(
        topics.uplink_response, Response("g1", on[3].decode(), "response", 0, '{"result":0}'), at=21_000
    )
    assert states(answered) == ["SUCCEEDED"]

"""The downlink agent: a request becomes a publish, and what the device says its end."""

from types import MappingProxyType, SimpleNamespace

import pytest

from agents.downlink import follow_commands
from tables.commands import PARTITION, commands
from tpstream.bus import topics
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.position import Position
from tpstream.devices.profiles import Profile, ScriptRef
from tpstream.errors import TpstreamError
from tpstream.messages import CommandRequest, DeviceStatus, Response
from tpstream.settings import Settings
from tpstream.testing import LIFE, FakeRecord, batch_of, make_batch, sent

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
    pool = pytest.importorskip("tpstream.lua.pool")
    scripts = Scripts(pool.Result(b"\x01\x02"), pool.Failed("script", "fan.lua:1: no"))
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

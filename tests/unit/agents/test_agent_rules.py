"""The rules agent: alarms and commands of the release in force, also when that changes."""

from types import SimpleNamespace

import msgspec
import pytest

from agents.rules import apply_rules
from tables.alarms import PARTITION, alarms
from tpstream.bus import topics
from tpstream.bus.envelope import DerivedHeader, Kind
from tpstream.bus.position import Position
from tpstream.errors import TpstreamError
from tpstream.messages import WindowResult
from tpstream.rules import state as rule_state
from tpstream.rules.definition import parse
from tpstream.testing import LIFE, FakeRecord, batch_of, sent


def rule(name, bound, window="mean"):
    return parse(
        f"rule: {name}\nwindow: {window}\nraise: {{above: {bound}}}\nclear: {{below: {bound}}}\n"
        "on_raise: {command: fan}",
        f"{name}.yaml",
    )


RELEASES = {None: (rule("hot", 30),), "v1": (rule("hot", 30), rule("warm", 20)), "v2": (rule("warm", 25),)}
SERVICES = SimpleNamespace(catalog=SimpleNamespace(rules=lambda version=None: RELEASES[version]))


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    monkeypatch.setattr(alarms, "partitions", {})


def record(offset, value, kind=Kind.PUBLISH):
    position = Position(LIFE, 0, offset)
    return FakeRecord(value, offset, 1000 + offset, b"", (("tp", DerivedHeader(kind, position, position).pack()),))


def closed(offset, value, key="t", device="d1"):
    result = WindowResult("mean", device, key, offset * 10, offset * 10 + 10, "mean", value, 1, 500)
    return record(offset, topics.windows.encode(result))


def configuration(offset, release):
    return record(offset, msgspec.json.encode({"release": release}), Kind.CONFIGURATION)


async def handle(*records):
    batch = batch_of(topics.windows, records, services=SERVICES, tables=[alarms])
    await apply_rules(batch)
    alarms.at(0).accept()
    return batch


def states(batch):
    return [(alarm.rule, str(alarm.state)) for alarm in sent(batch, topics.alarms)]


async def test_before_any_release_was_announced_the_newest_rules_hold():
    batch = await handle(closed(0, 31.0), record(1, None, Kind.TICK), closed(2, 29.0))
    assert states(batch) == [("hot", "active"), ("hot", "cleared")]
    command = next(out for out in batch.outgoing if out.topic == topics.downlink_command.name)
    assert (command.partition, command.key, command.timestamp) == (None, b"d1", 1000)
    assert {out.partition for out in batch.outgoing if out.topic == topics.alarms.name} == {0}


async def test_rules_change_where_the_configuration_record_passes():
    assert states(await handle(closed(0, 22.0), configuration(1, "v1"), closed(2, 22.0))) == [("warm", "active")]
    assert alarms.at(0).get(PARTITION).release == "v1"
    assert states(await handle(closed(3, 31.0))) == [("hot", "active")]


async def test_a_removed_rules_alarms_are_cleared():
    await handle(configuration(0, "v1"), closed(1, 31.0))
    batch = await handle(configuration(2, "v2"), closed(3, 24.0))
    assert states(batch) == [("hot", "cleared"), ("warm", "cleared")]
    assert sent(batch, topics.alarms)[0].ended_at == 1002
    assert set(alarms.at(0).get("d1").rules) == {"warm"}
    assert sent(batch, topics.downlink_command) == []


async def test_replayed_input_changes_nothing():
    records = [configuration(0, "v2"), closed(1, 26.0), configuration(2, "v1"), closed(3, 31.0)]
    assert states(await handle(*records)) == [("warm", "active"), ("hot", "active")]
    assert (await handle(*records)).outgoing == []
    assert alarms.at(0).get(PARTITION).release == "v1"


async def test_a_new_life_begins_with_the_newest_rules_and_its_active_alarms():
    await handle(configuration(0, "v1"), closed(1, 31.0))
    stored = alarms.at(0).get(PARTITION)
    alarms.at(0).put(PARTITION, msgspec.structs.replace(stored, release="gone", life=b"earlier"))
    assert states(await handle(closed(2, 40.0), closed(3, 29.0))) == [("hot", "cleared")]


async def test_keys_of_one_device_are_bounded_and_no_alarm_is_forgotten_silently(monkeypatch):
    monkeypatch.setattr(rule_state, "MAX_SERIES", 2)
    batch = await handle(*(closed(n, 31.0, key=f"k{n}") for n in range(4)))
    cleared = [alarm for alarm in sent(batch, topics.alarms) if alarm.ended_at]
    assert [msgspec.json.decode(alarm.details)["raised"]["key"] for alarm in cleared] == ["k0", "k1"]
    assert len(alarms.at(0).get("d1").rules["hot"]) == 2


async def test_what_cannot_be_read_is_an_error():
    with pytest.raises(TpstreamError, match="configuration record at offset 0"):
        await handle(record(0, b"[]", Kind.CONFIGURATION))
    with pytest.raises(TpstreamError, match="without a device"):
        await handle(closed(0, 1.0, device=""))

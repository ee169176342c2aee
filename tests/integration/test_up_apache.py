"""`tpstream up --kafka apache`, all parts real: what the broker took is there however it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from aiokafka import TopicPartition
from click.testing import CliRunner
from parts.fleet import Fleet, stored_ids, whole
from parts.whole import GREENHOUSE, Platform

from tpstream.bus import topics
from tpstream.bus.provision import connect, read_life
from tpstream.bus.reader import read_to_end
from tpstream.cli.root import root
from tpstream.embedded.apache import Apache
from tpstream.errors import ConfigurationError

pytestmark = [pytest.mark.apache, pytest.mark.slow]

DEVICES = 4

SESSION = 45.0
"""Seconds: more than any test here has, so that what waits for the end of a session fails."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One for the file, as each test goes on with what the one before left."""
    try:
        Apache(Path(), "127.0.0.1", 0).check()
    except ConfigurationError as error:
        pytest.skip(f"needs Apache Kafka: {error}")
    one = Platform(
        tmp_path_factory.mktemp("up"), "--kafka", "apache", "--app", str(GREENHOUSE), session_timeout=SESSION
    )
    try:
        one.start()
        yield one
    finally:
        one.kill()


def life(platform: Platform) -> str:
    record = asyncio.run(read_life(platform.settings.bootstrap))
    assert record is not None
    return record.id


def committed(platform: Platform) -> dict[tuple[str, str, int], int]:
    """The offset of each group, topic and partition."""

    async def ask() -> dict[tuple[str, str, int], int]:
        admin = await connect(platform.settings.bootstrap, 5)
        try:
            return {
                (group, place.topic, place.partition): one.offset
                for group, *_ in await admin.list_consumer_groups()
                for place, one in (await admin.list_consumer_group_offsets(group)).items()
            }
        finally:
            await admin.close()

    return asyncio.run(ask())


def said_and_stored(platform: Platform, prefix: str, each: int = 50) -> None:
    """Numbered messages of some devices are acknowledged and then in the store, once."""
    fleet = Fleet(platform, DEVICES, each, protocol=mqtt.MQTTv5, prefix=prefix)
    fleet.start()
    fleet.join()
    assert len(fleet.ledger.acknowledged) == DEVICES * each
    whole(platform, fleet)


def raw(platform: Platform, prefix: str) -> int:
    """How many messages of these devices the raw topic holds."""

    async def count() -> int:
        places = {TopicPartition(topics.uplink_raw.name, n): 0 for n in range(platform.settings.partitions)}
        found = [record async for _, some in read_to_end(platform.settings.bootstrap, places) for record in some]
        return sum((one.key or b"").startswith(prefix.encode()) and bool(one.value) for one in found)

    return asyncio.run(count())


def test_it_serves_and_says_where_records_are_kept(platform: Platform) -> None:
    said_and_stored(platform, "first")
    assert "Kafka keeps its records in " in platform.output.read_text()
    assert "memory" not in platform.output.read_text()
    assert (platform.settings.data_dir / "kafka" / "data" / "tp.uplink.raw.v1-0").is_dir()
    status, _ = platform.api("GET", "/health")
    assert status == 200


def test_an_orderly_restart_keeps_life_offsets_and_history(platform: Platform) -> None:
    before, offsets = life(platform), committed(platform)
    assert len({group for group, _, _ in offsets}) >= 2, "of process and store"
    began = time.monotonic()
    assert platform.stop() == 0
    assert time.monotonic() - began < 11
    assert "was killed" not in platform.output.read_text()
    platform.start()
    assert life(platform) == before
    now = committed(platform)
    assert all(now[place] >= offset for place, offset in offsets.items())
    assert raw(platform, "first") == DEVICES * 50
    said_and_stored(platform, "second")
    assert stored_ids(platform, "first").total() == DEVICES * 50, "each row once"


def test_a_killed_broker_comes_back_with_everything_it_took(platform: Platform) -> None:
    before, bridge = life(platform), platform.part("bridge").pid
    fleet = Fleet(platform, DEVICES, 400, protocol=mqtt.MQTTv5, pause=0.01, prefix="third", stamped=True)
    fleet.start()
    platform.wait(lambda: len(fleet.ledger.acknowledged) > 100)
    platform.part("kafka").send_signal(signal.SIGKILL)
    fleet.join()
    whole(platform, fleet, 60)
    assert len(fleet.ledger.acknowledged) == DEVICES * 400
    said = platform.output.read_text()
    assert re.search(r"kafka +died \(killed by SIGKILL\); starting it again", said)
    assert "memory is lost" not in said
    assert life(platform) == before
    assert platform.part("bridge").pid == bridge


@pytest.mark.parametrize("part", ["worker", "worker-store"])
def test_a_killed_worker_does_not_wait_for_its_own_session(platform: Platform, part: str) -> None:
    began = time.monotonic()
    platform.part(part).send_signal(signal.SIGKILL)
    said_and_stored(platform, f"killed-{part}")
    assert time.monotonic() - began < SESSION


def test_killed_outright_it_goes_on_where_it_was(platform: Platform) -> None:
    before = life(platform)
    platform.kill()
    platform.start()
    assert life(platform) == before
    said_and_stored(platform, "fourth")
    for prefix, each in (("first", 50), ("second", 50), ("third", 400)):
        assert stored_ids(platform, prefix).total() == DEVICES * each
    assert platform.stop() == 0


def test_without_the_jars_it_says_how_to_bring_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Apache.__init__, "__defaults__", (tmp_path / "none",))
    result = CliRunner().invoke(root, ["up", "--kafka", "apache", "--data-dir", str(tmp_path / "data")])
    assert isinstance(result.exception, ConfigurationError)
    assert "run `make kafka`" in str(result.exception)
    assert not (tmp_path / "data").exists()

"""Nothing acknowledged is lost, nothing is doubled: what paho published against what the store shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import paho.mqtt.client as mqtt
import pytest
from parts.fleet import Fleet, stored_ids
from parts.whole import Platform, started

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

WHOLE = {"lost": 0, "duplicated": 0, "foreign": 0}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for the tests of this file; each has devices of its own."""
    with started(tmp_path_factory.mktemp("ledger")) as one:
        yield one


def settled(platform: Platform, fleet: Fleet, patience: float = 30.0) -> None:
    """Wait until the store shows as many ids as were acknowledged."""
    prefix = fleet.prefix
    platform.wait(lambda: len(stored_ids(platform, prefix)) >= len(fleet.ledger.acknowledged), patience)


def test_five_thousand_messages_of_fifty_devices(running: Platform) -> None:
    fleet = Fleet(running, 50, 100, protocol=mqtt.MQTTv5)
    fleet.start()
    fleet.join()
    settled(running, fleet)
    assert len(fleet.ledger.acknowledged) == 5_000
    assert fleet.ledger.compare(stored_ids(running)) == WHOLE
    mine = "FROM telemetry WHERE startsWith(device, 'ledger-')"
    assert running.rows(f"SELECT count(), uniqExact(device) {mine}") == [(15_000, 50)]
    assert running.rows("SELECT count() FROM dead_letters") == [(0,)]


@pytest.mark.parametrize("part", ["worker", "worker-store", "bridge", "store"])
def test_an_orderly_restart_in_the_middle_of_the_stream(running: Platform, part: str) -> None:
    fleet = Fleet(running, 50, 100, protocol=mqtt.MQTTv311, pause=0.05, prefix=f"{part}-restarted")
    fleet.start()
    running.wait(lambda: len(fleet.ledger.acknowledged) > 1_000)
    running.restart_part(part)
    assert len(fleet.ledger.acknowledged) < 5_000, "the restart came in the middle"
    fleet.join()
    settled(running, fleet, 60.0)
    assert len(fleet.ledger.acknowledged) == 5_000
    assert fleet.ledger.compare(stored_ids(running, fleet.prefix)) == WHOLE


def test_run_again_the_history_is_there_and_added_to(platform: Callable[..., Platform]) -> None:
    first = platform()
    fleet = Fleet(first, 5, 100, protocol=mqtt.MQTTv5)
    fleet.start()
    fleet.join()
    assert not first.part("worker").children(), "where nobody has a script no process waits for one"
    assert first.stop() == 0
    again = platform(data_dir=first.settings.data_dir)
    assert fleet.ledger.compare(stored_ids(again)) == WHOLE, "the last messages before the stop are stored too"
    more = Fleet(again, 5, 150, protocol=mqtt.MQTTv5)
    more.start()
    more.join()
    again.wait(lambda: again.rows("SELECT count() FROM telemetry WHERE key = 'id'") == [(1_250,)])
    assert again.stop() == 0

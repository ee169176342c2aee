"""The bridge behind a broker is stopped again and again on a starved machine: each message is stored once.

What a bridge has acknowledged and the broker has not read yet must not be lost with the connection: the
broker would send it again, and it would be stored twice.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import paho.mqtt.client as mqtt
import pytest
from parts.fleet import Fleet, whole
from parts.mosquitto import Mosquitto
from parts.whole import GREENHOUSE, Platform

pytestmark = [pytest.mark.kafka, pytest.mark.mosquitto, pytest.mark.slow]


@pytest.fixture
def starved() -> Iterator[None]:
    """Four processes that want all of the CPU."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    yield
    for hog in hogs:
        hog.kill()
        hog.wait()


def test_orderly_stops_of_the_bridge_double_nothing(
    platform: Callable[..., Platform], mosquitto: Mosquitto, starved: None
) -> None:
    running = platform("--app", str(GREENHOUSE), bridge_way="broker", broker_url=mosquitto.url)
    fleet = Fleet(running, 20, 400, protocol=mqtt.MQTTv5, pause=0.01, port=mosquitto.port)
    fleet.start()
    for acknowledged in (1_000, 2_500, 4_000):
        running.wait(lambda so_many=acknowledged: len(fleet.ledger.acknowledged) > so_many)
        running.restart_part("bridge")
    fleet.join()
    whole(running, fleet, 60)
    assert len(fleet.ledger.acknowledged) == 8_000

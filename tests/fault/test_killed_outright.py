"""Kill the supervisor with SIGKILL, with the real parts: nothing of it is left running."""

from __future__ import annotations

import time
from collections.abc import Callable

import paho.mqtt.client as mqtt
import psutil
import pytest
from parts.fleet import Fleet, stored_ids
from parts.whole import GREENHOUSE, PARTS, Platform, started

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def of(platform: Platform) -> list[str]:
    """The command lines of all processes that have this platform's data folder or one of its ports."""
    settings = platform.settings
    marks = (str(settings.data_dir), f":{settings.kafka_port}")
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            environ = process.environ().get("TPSTREAM_DATA_DIR", "")
        except psutil.Error:
            continue
        if process.status() != psutil.STATUS_ZOMBIE and (
            environ == marks[0] or any(mark in word for mark in marks for word in words)
        ):
            found.append(" ".join(words))
    return found


def test_nothing_is_left(platform: Callable[..., Platform]) -> None:
    running = platform("--app", str(GREENHOUSE), "--simulate")
    fleet = Fleet(running, 10, 1_000, protocol=mqtt.MQTTv5, pause=0.01)
    fleet.start()
    running.wait(lambda: len(stored_ids(running)) > 100)
    for name in PARTS:
        assert running.part(name).is_running()
    assert len(of(running)) > len(PARTS), "scripts have processes of their own"
    stored = stored_ids(running)
    running.process.kill()
    running.process.wait()
    began = time.monotonic()
    while left := of(running):
        assert time.monotonic() - began < 5, left
        time.sleep(0.05)

    fleet.enough()
    with started(running.settings.data_dir) as again:  # what it left in the folder hinders nobody
        assert stored <= stored_ids(again)

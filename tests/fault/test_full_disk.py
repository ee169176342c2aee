"""The data disk fills up under load: it is said, nothing acknowledged is lost, and with room all goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from parts.fleet import Fleet, whole
from parts.whole import Platform, started

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 400 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", folder]).returncode:
        pytest.skip("left out: a small file system can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def fill(file: Path) -> None:
    """Take what room there is."""
    with file.open("wb") as out:
        try:
            while True:
                out.write(bytes(1_000_000))
                out.flush()
        except OSError:
            pass


def store_is_red(platform: Platform) -> bool:
    """Whether /health says that rows cannot be written, and why."""
    _, report = platform.api("GET", "/health")
    details = [part["detail"] for part in report.values() if isinstance(part, dict) and not part["ok"]]
    return any("space" in detail.lower() or "disk" in detail.lower() for detail in details)


def test_a_full_disk_loses_nothing_and_is_named(small_disk: Path) -> None:
    with started(small_disk / "var") as platform:
        fleet = Fleet(platform, 20, 400, protocol=mqtt.MQTTv5, pause=0.05, prefix="full")
        fleet.start()
        platform.wait(lambda: len(fleet.ledger.acknowledged) > 1_000)
        filler = small_disk / "filler"
        fill(filler)
        platform.wait(lambda: store_is_red(platform), 40)
        filler.unlink()
        fleet.enough()
        fleet.join()
        whole(platform, fleet, 90)
        assert len(fleet.ledger.acknowledged) > 1_000

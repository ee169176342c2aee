"""When a new life of the embedded broker begins in good order, and when it is put off."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tpstream.embedded import ask, lives, parts
from tpstream.embedded.keeper import Keeper
from tpstream.embedded.kept import Kept
from tpstream.embedded.watch import Watch
from tpstream.settings import Settings

PORTS = {"6067": "bridge", "6066": "worker"}

deaf: set[str] = set()
"""What is asked in vain."""


class FakeWatch:
    """A part whose worker tells these lags, one after another, the last for ever."""

    def __init__(self, log: list[str], name: str, lags: list[float | None], memory: int = 0) -> None:
        self.wanted = True
        self.ready = asyncio.Event()
        self.ready.set()
        self.process: Any = SimpleNamespace(pid=1, memory=lambda: memory)
        self.part = SimpleNamespace(name=name, lag=self._lag)
        self._lags = lags
        self._log = log

    async def _lag(self, pid: int) -> float | None:
        return self._lags.pop(0) if len(self._lags) > 1 else self._lags[0]

    async def stop(self, seconds: float, *, expected: bool = True) -> None:
        self._log.append(f"stop {self.part.name}")

    async def start(self) -> None:
        self._log.append(f"start {self.part.name}")

    def signal(self, number: int) -> None:
        pass


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    events: list[str] = []
    deaf.clear()

    async def post(url: str, seconds: float) -> bool:
        address, what = url.rsplit("/", 1)
        events.append(f"{what} {PORTS[address.rsplit(':', 1)[1]]}")
        return events[-1] not in deaf

    monkeypatch.setattr(ask, "post", post)
    monkeypatch.setattr(lives, "POLL", 0.0)
    monkeypatch.setattr(lives, "DRAIN_SECONDS", 0.02)
    return events


def begin(
    log: list[str], tmp_path: Path, worker: list[float | None], store: list[float | None], memory_mb: int
) -> lives.Lives:
    watches = {
        parts.KAFKA: FakeWatch(log, "kafka", [0], memory_mb * 1_000_000),
        parts.BRIDGE: FakeWatch(log, "bridge", [0]),
        parts.WORKER: FakeWatch(log, "worker", worker),
        parts.WORKER_STORE: FakeWatch(log, "worker-store", store),
    }
    keeper = Keeper(Kept(tmp_path), "127.0.0.1:1")
    return lives.Lives(
        Settings(kafka_memory_mb=100), cast(dict[str, Watch], watches), keeper, lambda _, text: log.append(text)
    )


async def test_it_begins_once_both_workers_have_nothing_left(log: list[str], tmp_path: Path) -> None:
    assert await begin(log, tmp_path, [7, 0], [None, 5, 0, 1, 0], 120).renew()
    stops = ["stop worker", "stop worker-store", "stop kafka"]
    assert log[:6] == ["hold bridge", "hold worker", *stops, "start kafka"]
    assert set(log[6:8]) == {"release bridge", "release worker"}


@pytest.mark.parametrize("name", ["bridge", "worker"])
async def test_it_is_put_off_where_somebody_still_takes_something(name: str, log: list[str], tmp_path: Path) -> None:
    deaf.add(f"hold {name}")
    assert not await begin(log, tmp_path, [0], [0], 120).renew()
    assert any(f"put off, as the {name} does not hold" in event for event in log)
    assert set(log[-2:]) == {"release bridge", "release worker"}
    assert not any(event.startswith("stop") for event in log)


async def test_it_is_put_off_while_a_worker_lags(log: list[str], tmp_path: Path) -> None:
    assert not await begin(log, tmp_path, [0], [9], 120).renew()
    assert log[:2] == ["hold bridge", "hold worker"]
    assert set(log[-2:]) == {"release bridge", "release worker"}
    assert not any(event.startswith("stop") for event in log)


async def test_a_worker_that_says_nothing_is_not_taken_for_done(log: list[str], tmp_path: Path) -> None:
    assert not await begin(log, tmp_path, [None], [0], 120).renew()


async def test_at_twice_the_bound_devices_are_held_until_the_store_has_caught_up(
    log: list[str], tmp_path: Path
) -> None:
    lags: list[float | None] = [9]
    renewing = asyncio.create_task(begin(log, tmp_path, [0], lags, 210).renew())
    while not any("held back" in event for event in log):
        await asyncio.sleep(0.001)
    assert "release bridge" not in log
    lags[0] = 0
    assert await renewing
    assert "release bridge" in log

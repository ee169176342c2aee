"""An assignment that cannot be taken over ends the worker: the Kafka client would only log it and go on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tpstream.bus import runner as module
from tpstream.bus.producer import Producer
from tpstream.bus.runner import Runner
from tpstream.errors import Unavailable
from tpstream.settings import Settings


async def test_it_ends_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(bootstrap: str) -> None:
        raise Unavailable("Kafka at nowhere:1: the life could not be read")

    monkeypatch.setattr(module, "read_life", away)
    services: Any = SimpleNamespace(settings=Settings.load({}, data_dir=tmp_path))
    runner = Runner(
        "g", [], services, Producer("nowhere:1", 1), interval=1.0, on_rejected=lambda sink, error: None
    )  # fmt: skip
    with pytest.raises(Unavailable):
        await runner._on_assigned(set())
    assert runner.lane.failed.is_set()
    assert runner.lane.failure == "Kafka at nowhere:1: the life could not be read"
    assert not runner.assigned

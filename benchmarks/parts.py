"""Parts of a platform for a measurement, each a process on the core that it should be on."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import clickhouse_connect

from benchmarks.broker import Broker
from benchmarks.cores import BROKER, pin
from benchmarks.platform import APPLICATION, free_ports
from benchmarks.readings import PARTITIONS
from tpstream.bus.provision import provision
from tpstream.devices import publish
from tpstream.embedded.child import die_with_parent
from tpstream.settings import Settings

READY_SECONDS = 60.0


def settings_for(broker: Broker, name: str, **overrides: Any) -> Settings:
    """Settings with a data folder and ports of their own; the topics are made and the application is published."""
    web, other, store = free_ports(3)
    folder = broker.folder / name
    folder.mkdir(parents=True)
    settings = Settings(
        kafka=broker.bootstrap,
        partitions=PARTITIONS,
        data_dir=folder,
        app=str(APPLICATION),
        register_on_first_sight=True,
        bridge_web_host="-",
        web_port=web,
        worker_web_port=other,
        store_port=store,
        **overrides,
    )
    asyncio.run(provision(settings))
    asyncio.run(publish.apply(settings, APPLICATION))
    return settings


def worker(role: str, *agents: str) -> list[str]:
    """The command of a worker that says how many messages the slowest of these agents has done."""
    return [sys.executable, "-m", "benchmarks.subjects.full", role, *agents]


class Store:
    """The embedded store; `start` and `kill` as often as wanted. `pid` 0: it does not run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises RuntimeError."""
        with (self.settings.data_dir / "store.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tpstream.embedded.store"],
                env=os.environ | self.settings.environ(),
                stdout=log,
                stderr=log,
                preexec_fn=pin(BROKER, die_with_parent(os.getpid())),
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.settings.store_port}/ping"):
                return
            time.sleep(0.2)
        raise RuntimeError("the store does not answer")

    def kill(self) -> None:
        """End it at once."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def count(self, table: str) -> int:
        """Rows that a reader of a table sees."""
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=self.settings.store_port, autogenerate_session_id=False
        )
        try:
            return int(client.query(f"SELECT count() FROM {table}").result_rows[0][0])
        finally:
            client.close()


@contextmanager
def store(settings: Settings) -> Iterator[Store]:
    """A running store."""
    made = Store(settings)
    try:
        made.start()
        yield made
    finally:
        made.kill()


def said(log: Path, words: str) -> str | None:
    """The last line of a log with these words in it."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if words in line]
    return lines[-1] if lines else None

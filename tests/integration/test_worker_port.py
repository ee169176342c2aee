"""A worker whose web port is taken: one line that names the port and the setting, and exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from parts.kafka import Kafka

from tpstream.settings import Settings

UNCHECKED = """
import sys
from tpstream.cli import entry
from tpstream.embedded import ports
ports.check = lambda *_: None
sys.exit(entry.run(sys.argv[1:]))
"""


def worker(settings: Settings, *python: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | settings.environ()
    command = [sys.executable, *python, "worker", "--roles", "process"]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=40, check=False)


def test_it_is_said_at_once_even_where_kafka_is_away() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        began = time.monotonic()
        done = worker(Settings(web_port=port, kafka="127.0.0.1:1"), "-m", "tpstream")
    assert done.returncode == 2
    assert done.stderr.startswith(f"tpstream: port {port} (TPSTREAM_WEB_PORT) is taken by ")
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - began < 20


@pytest.mark.kafka
def test_who_loses_the_race_for_it_hears_the_same(kafka: Kafka) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = worker(kafka.settings(web_port=port), "-c", UNCHECKED)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == f"tpstream: 127.0.0.1:{port} has been taken; set TPSTREAM_WEB_PORT to a free port"
    assert "Traceback" not in done.stderr

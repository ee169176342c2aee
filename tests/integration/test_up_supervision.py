"""`tpstream up` keeps its parts running and leaves nothing behind: the real broker, stand-ins for the others."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from parts.supervised import PARTS, Up, alive

pytestmark = pytest.mark.kafka


def test_it_starts_says_where_everything_is_and_stops_in_order(up: Callable[..., Up]) -> None:
    one = up("worker=--lag 3")
    one.until_ready()
    one.until(lambda: "simulator" in one.of("started"))
    assert set(one.pids()) == set(PARTS)
    for name in PARTS:
        assert re.search(rf"{name} +ready \(\d+\.\d s\)", one.said)
    began = time.monotonic()
    one.interrupt()
    assert one.end() == 0
    assert time.monotonic() - began < 10
    assert one.of("stopped") == ["bridge", "simulator", "worker", "worker-store", "store"]
    happened = [(name, what) for name, what, _ in one.events()]
    assert happened.index(("worker", "hold")) < happened.index(("bridge", "stopped"))
    assert one.pids() == {}


def test_it_is_ready_only_when_the_whole_is_well_and_what_is_not_is_left_alone(up: Callable[..., Up]) -> None:
    one = up("worker=--ill 15")  # asked once until it answers at all, then every 0.1 s
    one.until(lambda: all(re.search(rf"{name} +ready", one.said) for name in PARTS))
    assert "tpstream is ready" not in one.said
    one.until_ready()
    assert one.of("started").count("worker") == 1
    assert "died" not in one.said


def test_killed_outright_it_leaves_nothing_running(up: Callable[..., Up]) -> None:
    one = up()
    one.until_ready()
    assert len(one.pids()) == len(PARTS)
    one.process.kill()
    one.process.wait()
    one.until(lambda: one.pids() == {}, 3)


def test_a_second_one_in_the_same_folder_is_refused(up: Callable[..., Up]) -> None:
    one = up()
    one.until_ready()
    two = up()
    assert two.end() == 2
    assert two.said.startswith(f"tpstream: another `tpstream up` (pid {one.process.pid}) runs in {one.data}")
    assert len(two.lines) == 1
    assert len(one.pids()) == len(PARTS)


def test_a_taken_port_is_refused_before_anything_starts(up: Callable[..., Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = up(mqtt_port=port)
        assert one.end() == 2
    assert f"port {port} (TPSTREAM_MQTT_PORT) is taken by" in one.said
    assert len(one.lines) == 1
    assert one.events() == []


def test_a_part_that_dies_is_started_again_and_a_line_says_so(up: Callable[..., Up]) -> None:
    one = up()
    one.until_ready()
    os.kill(one.pids()["bridge"], signal.SIGKILL)
    one.until(lambda: one.of("started").count("bridge") == 2)
    assert re.search(r"bridge +died \(killed by SIGKILL\); starting it again in 0\.5 s, see .*bridge\.log", one.said)
    one.interrupt()
    assert one.end() == 0


def test_a_part_that_keeps_dying_stops_everything_with_its_last_lines(up: Callable[..., Up]) -> None:
    one = up("simulator=--die 0.05")
    assert one.end(30) == 1
    assert one.said.count("simulator     died (exit code 3)") == 4
    assert re.search(r"something broke\ntpstream: simulator keeps dying \(exit code 3\); its log is ", one.said)
    assert one.pids() == {}


def test_a_part_whose_settings_are_wrong_is_not_tried_again(up: Callable[..., Up]) -> None:
    one = up("worker=--wrong")
    assert one.end() == 2
    assert re.search(r"a setting is wrong\ntpstream: worker cannot start \(exit code 2\)", one.said)
    assert one.pids() == {}


def test_an_application_that_cannot_be_applied_shows_only_what_this_run_said(
    up: Callable[..., Up], tmp_path: Path
) -> None:
    (tmp_path / "app.toml").write_text("name = 3\n")
    (tmp_path / "data/log").mkdir(parents=True)
    (tmp_path / "data/log/apply.log").write_text("an earlier apply\n")
    one = up(app=tmp_path)
    assert one.end() == 2
    assert "app.toml" in one.said
    assert "an earlier apply" not in one.said


def test_what_will_not_stop_is_killed_and_all_ends_in_time(up: Callable[..., Up]) -> None:
    one = up("worker=--stop 60", "bridge=--stop 60", stop_seconds=4)
    one.until_ready()
    began = time.monotonic()
    one.interrupt()
    assert one.end() == 0
    assert time.monotonic() - began < 5
    assert len(re.findall(r"had not stopped after \d\.\d s and was killed", one.said)) == 2
    assert one.of("stopped")[-1] == "store"
    assert one.pids() == {}


def test_interrupted_twice_it_kills(up: Callable[..., Up]) -> None:
    one = up("bridge=--stop 60")
    one.until_ready()
    one.interrupt()
    one.until(lambda: "stopping in order" in one.said)
    time.sleep(1.0)
    began = time.monotonic()
    one.interrupt()
    one.end()
    assert time.monotonic() - began < 2
    assert one.pids() == {}


def test_two_signals_at_once_are_one_request(up: Callable[..., Up]) -> None:
    one = up("bridge=--stop 1")
    one.until_ready()
    for _ in range(3):
        one.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)  # or the kernel makes them one
    assert one.end() == 0
    assert "kill" not in one.said.replace("once more kills", "")
    assert one.of("stopped") == ["bridge", "simulator", "worker", "worker-store", "store"]


def test_interrupted_while_it_starts_it_stops_too(up: Callable[..., Up]) -> None:
    one = up()
    one.until(lambda: "store" in one.of("started"))
    one.interrupt()
    assert one.end() == 0
    assert one.pids() == {}


def test_what_a_part_leaves_behind_goes_with_it(up: Callable[..., Up]) -> None:
    one = up("worker=--grandchild")
    one.until_ready()
    os.kill(one.pids()["worker"], signal.SIGKILL)
    one.until(lambda: one.of("started").count("worker") == 2)
    first = next(int(what.split()[1]) for _, what, _ in one.events() if what.startswith("grandchild"))
    assert not alive(first)
    one.interrupt()
    assert one.end() == 0

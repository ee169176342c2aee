"""One `up` per folder, and no port that somebody else has."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tpstream.embedded import ports
from tpstream.embedded.lock import Lock, refuse_beside_up
from tpstream.embedded.logfile import LogFile
from tpstream.errors import ConfigurationError, TpstreamError


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        yield taken.getsockname()[1]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "PATIENCE", 0.0)


def test_the_second_is_told_who_was_first(tmp_path: Path) -> None:
    with (
        Lock(tmp_path),
        pytest.raises(ConfigurationError, match=rf"pid {os.getpid()}\) runs in .*TPSTREAM_DATA_DIR"),
        Lock(tmp_path),
    ):
        pass
    with Lock(tmp_path):  # released
        pass


def test_a_worker_is_refused_the_folder_of_an_up_that_did_not_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_beside_up(tmp_path / "nowhere")
    with Lock(tmp_path):
        with pytest.raises(ConfigurationError, match=rf"pid {os.getpid()}\).*up --app DIR.*TPSTREAM_DATA_DIR"):
            refuse_beside_up(tmp_path)
        holder = os.getpid()
        monkeypatch.setattr(os, "getppid", lambda: holder)
        refuse_beside_up(tmp_path)  # started by it
    monkeypatch.undo()
    refuse_beside_up(tmp_path)  # released


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file: cannot be the data directory"), Lock(tmp_path / "file"):
        pass


def test_a_full_disk_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 3_000_000))
    with pytest.raises(TpstreamError, match=r"disk is full \(3 MB free"), Lock(tmp_path):
        pass


def test_a_taken_port_names_port_setting_and_holder(listener: int) -> None:
    with pytest.raises(ConfigurationError) as error:
        ports.check("127.0.0.1", {"TPSTREAM_MQTT_PORT": listener})
    for word in (str(listener), "TPSTREAM_MQTT_PORT", f"pid {os.getpid()}"):
        assert word in str(error.value)


def test_two_settings_of_one_port_name_both() -> None:
    with pytest.raises(ConfigurationError, match="A and B are both 4711"):
        ports.check("127.0.0.1", {"A": 4711, "B": 4711})


def test_a_free_port_and_one_in_time_wait_are_free(listener: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        free = other.getsockname()[1]
    ports.check("127.0.0.1", {"A": free})


@pytest.mark.parametrize(
    ("host", "port", "text"), [("127.0.0.1", 70_000, "A=70000 is no port"), ("192.0.2.1", 4711, "TPSTREAM_HOST")]
)
def test_what_is_no_port_or_no_address_of_ours(host: str, port: int, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        ports.check(host, {"A": port})


def test_a_log_is_bounded_while_it_is_written_to(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log" / "part.log", largest=100)
    with log.open() as file:
        file.write(b"old\n" * 30)
        file.flush()
        log.bound()
        file.write(b"new\n\nlast\n")
        file.flush()
        log.bound()
    assert log.tail(1) == ["last"]
    assert log.path.read_bytes() == b"new\n\nlast\n"
    assert log.old.read_bytes() == b"old\n" * 30


def test_a_tail_is_of_this_run_and_of_all_its_processes(tmp_path: Path) -> None:
    path = tmp_path / "part.log"
    with LogFile(path).open() as file:
        file.write(b"an earlier run\n")
    log = LogFile(path, largest=60)
    assert log.tail() == ["an earlier run"], "nothing is begun yet"
    for text in (b"first\n", b"second\n"):
        with log.open() as file:
            file.write(text)
    assert log.tail() == ["first", "second"]
    with log.open() as file:
        file.write(b"long\n" * 10)
    log.bound()  # puts the file aside: what is in it now is all of this run
    with log.open() as file:
        file.write(b"third\n")
    assert log.tail() == ["third"]


def test_a_log_put_aside_as_a_run_begins_leaves_a_tail(tmp_path: Path) -> None:
    path = tmp_path / "part.log"
    path.write_bytes(b"old\n" * 30)
    log = LogFile(path, largest=100)
    with log.open() as file:
        file.write(b"new\n")
    assert log.tail() == ["new"]


def test_no_log_has_no_tail(tmp_path: Path) -> None:
    assert LogFile(tmp_path / "none.log").tail() == []


def test_a_port_that_a_client_has_names_the_client(listener: int) -> None:
    with socket.create_connection(("127.0.0.1", listener)) as client:
        port = client.getsockname()[1]
        with pytest.raises(ConfigurationError, match=rf"port {port} .*pid {os.getpid()}"):
            ports.check("127.0.0.1", {"TPSTREAM_WEB_PORT": port})

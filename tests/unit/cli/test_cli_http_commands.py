"""`send`, `sql` and `health` against a server that speaks as the real ones do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tpstream.cli import entry, processes, send
from tpstream.observability.announce import announce
from tpstream.settings import Settings

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Server:
    """Answers as `answer(method, path, body)` says; keeps what was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[str, str, bytes], Answer] = lambda *_: (404, {"error": "nothing here"})
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked.append((self.command, self.path, body, dict(self.headers)))
                status, content, *headers = outer.answer(self.command, self.path, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.http.server_address[1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in ("WEB_PORT", "STORE_PORT"):
        monkeypatch.setenv(f"TPSTREAM_{name}", str(made.port))
    monkeypatch.setenv("TPSTREAM_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(send, "POLL_SECONDS", 0.0)
    yield made
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def life_of_a_command(*states: str, result: str = "") -> Callable[[str, str, bytes], Answer]:
    left = list(states)

    def answer(method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            return 202, {"id": "c-1", "state": "QUEUED"}
        state = left.pop(0) if len(left) > 1 else left[0]
        if not state:
            return 404, {"error": "no command is stored"}
        return 200, {"id": "c-1", "state": state, "created_at": 1000, "updated_at": 1500, "result": result}

    return answer


@pytest.mark.parametrize(
    ("states", "code", "out"),
    [
        (("", "QUEUED", "SENT", "SUCCEEDED"), 0, 'SENT, the broker has it …\nSUCCEEDED after 0.50 s: {"result":0}\n'),
        (("SENT", "REFUSED"), 1, 'SENT, the broker has it …\nREFUSED after 0.50 s: {"result":0}\n'),
        (("TIMED_OUT",), 1, 'TIMED_OUT after 0.50 s: {"result":0}\n'),
    ],
)
def test_a_command_is_followed_to_its_end(
    server: Server, states: tuple[str, ...], code: int, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = life_of_a_command(*states, result='{"result":0}')
    assert entry.run(["send", "d 1/ä", "fan", '{"on": true}', "--timeout", "3", "--attempts", "1"]) == code
    assert capsys.readouterr().out == out
    method, path, body, headers = server.asked[0]
    assert (method, path, headers["Content-Type"]) == (
        "POST",
        "/api/v1/devices/d%201%2F%C3%A4/commands",
        "application/json",
    )
    assert json.loads(body) == {"method": "fan", "params": {"on": True}, "timeout": 3.0, "attempts": 1}


def test_a_command_that_does_not_end_is_an_error_with_a_way_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(send, "GRACE_SECONDS", 0.05)
    server.answer = life_of_a_command("SENT")
    assert entry.run(["send", "d1", "fan", "--timeout", "0.01", "--attempts", "1"]) == 1
    assert "command c-1 is still SENT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "state", "attempts", "words"),
    [
        ([("d1", False)], "ENCODED", 0, "and was not sent yet: d1 is offline. It stays queued until it expires"),
        ([("d2", False), ("d1", True)], "ENCODED", 0, "d1 is offline or has an earlier command to answer. It stays"),
        ([("d1", None)], "ENCODED", 0, "d1 is offline or has an earlier command to answer. It stays queued until"),
        (None, "ENCODED", 0, "d1 is offline or has an earlier command to answer. It stays queued until it"),
        ([("d1", False)], "ENCODED", 1, "after 0 s; look later"),
        ([("d1", False)], "SENT", 1, "after 0 s; look later"),
    ],
)
def test_of_a_command_that_was_never_sent_the_reason_is_said_as_far_as_it_is_known(
    server: Server,
    rows: list[tuple[str, bool | None]] | None,
    state: str,
    attempts: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(method: str, path: str, body: bytes) -> Answer:
        if method == "POST":
            return 202, {"id": "c-1", "state": "QUEUED"}
        if path.startswith("/api/v1/devices"):
            devices = [{"device": number, "online": online} for number, online in rows or ()]
            return (503, {"error": "away"}) if rows is None else (200, {"total": 1, "devices": devices})
        return 200, {"id": "c-1", "state": state, "attempts": attempts}

    monkeypatch.setattr(send, "GRACE_SECONDS", 0.05)
    server.answer = answer
    assert entry.run(["send", "d1", "fan", "--timeout", "0.01", "--attempts", "1"]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert "look later with `tpstream sql" in err
    assert err.count("\n") == 1


def test_without_waiting_only_the_id_comes_back(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = life_of_a_command("SENT")
    assert entry.run(["send", "d1", "fan", "--no-wait"]) == 0
    assert capsys.readouterr().out == "c-1\n"
    assert len(server.asked) == 1
    assert json.loads(server.asked[0][2]) == {"method": "fan"}


def test_for_programs_the_command_is_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = life_of_a_command("SENT", "SUCCEEDED")
    assert entry.run(["send", "d1", "fan", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "SUCCEEDED"


@pytest.mark.parametrize(("status", "code"), [(400, 2), (403, 1), (503, 1)])
def test_what_the_api_refuses_is_said_in_its_words(
    server: Server, status: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda *_: (status, {"error": "method: must be a non-empty text"})
    assert entry.run(["send", "d1", "fan"]) == code
    assert capsys.readouterr().err == f"tpstream: the API answered {status}: method: must be a non-empty text\n"


COMPACT = {"meta": [{"name": "device"}, {"name": "n"}], "data": [["d1", 2], ["d2", None]]}


def test_a_query_goes_to_the_store_as_its_reader_and_comes_back_as_a_table(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda *_: (200, COMPACT, {"X-ClickHouse-Format": "JSONCompact"})
    assert entry.run(["sql", "SELECT 'ä'"]) == 0
    assert capsys.readouterr().out == "device  n\nd1      2\nd2\n"
    method, path, body, headers = server.asked[0]
    assert (method, body.decode(), headers["X-ClickHouse-User"]) == ("POST", "SELECT 'ä'", "bi")
    assert path == "/?database=default&default_format=JSONCompact"


@pytest.mark.parametrize(("option", "form"), [("--json", "JSONEachRow"), ("--csv", "CSVWithNames")])
def test_for_programs_rows_come_as_the_store_writes_them(
    server: Server, option: str, form: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    server.answer = lambda *_: (200, b"raw \xff\n")
    assert entry.run(["sql", option, "SELECT 1"]) == 0
    assert capfdbinary.readouterr().out == b"raw \xff\n"
    assert server.asked[0][1].endswith(f"default_format={form}")


def test_a_query_with_a_format_of_its_own_is_printed_as_it_comes(
    server: Server, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    server.answer = lambda *_: (200, b"1\t2\n", {"X-ClickHouse-Format": "TSV"})
    assert entry.run(["sql", "SELECT 1, 2 FORMAT TSV"]) == 0
    assert capfdbinary.readouterr().out == b"1\t2\n"


def test_a_refused_query_is_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    body = b"Code: 60. DB::Exception: Unknown table x.\nMaybe y? (UNKNOWN_TABLE) (version 26.1.2 (official build))\n"
    server.answer = lambda *_: (404, body)
    assert entry.run(["sql", "SELECT * FROM x"]) == 1
    expected = "60. DB::Exception: Unknown table x. Maybe y? (UNKNOWN_TABLE)"
    assert capsys.readouterr().err == f"tpstream: the store refused the query: {expected}\n"


def test_health_is_well_only_if_every_part_of_every_process_is(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"ok": True, "lag": 3, "kafka": {"ok": True, "detail": "fine"}}
    server.answer = lambda *_: (200, good)
    announce(tmp_path, "process", server.port)  # the web port itself: not asked twice
    assert entry.run(["health", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "processes": {"web": {"port": server.port, **good}}}

    announce(tmp_path, "store", 1)  # announced, and does not answer
    assert entry.run(["health"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["ok", "web", f":{server.port}", "kafka", "fine"]
    assert lines[2].split()[:4] == ["NO", "store", ":1", "http"]

    server.answer = lambda *_: (503, {"ok": False, "kafka": {"ok": False, "detail": "away"}})
    assert entry.run(["health"]) == 1
    assert "NO" in capsys.readouterr().out


def test_workers_that_run_other_python_or_none_are_stale_and_who_is_silent_is_not_called_so(
    server: Server, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path)
    assert processes.workers(settings, "a", "1") == ([], [])
    announce(tmp_path, "bridge", server.port)
    announce(tmp_path, "store", 1)  # does not answer
    assert processes.workers(settings, "a", "1") == (["store"], [])
    announce(tmp_path, "process", server.port)
    for running, stale in (({"app": "a@1"}, []), ({"app": "a@2"}, ["process"]), ({}, ["process"])):
        server.answer = lambda *_, running=running: (503, {"ok": False, "life": "00", **running})
        assert processes.workers(settings, "a", "1") == (["process", "store"], stale)


@pytest.mark.parametrize("arguments", [["health"], ["send", "d1", "fan"], ["sql", "SELECT 1"]])
def test_a_part_that_is_away_is_exit_code_3_and_a_remedy(
    arguments: list[str], server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WEB_PORT", "STORE_PORT"):
        monkeypatch.setenv(f"TPSTREAM_{name}", "1")
    assert entry.run(arguments) == 3
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "127.0.0.1:1 is not reachable (Connection refused); start `tpstream up`, or set TPSTREAM_" in err

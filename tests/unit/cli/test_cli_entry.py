"""The command line as a whole: help, errors of one line, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tpstream.cli import entry
from tpstream.cli.root import GROUPS, root
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable

COMMANDS = [name for commands in GROUPS.values() for name in commands]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TPSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "tpstream", *arguments],
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_names_every_command_and_imports_none() -> None:
    heavy = ["faust", "aiokafka", "chdb", "aiohttp", "lupa", "yaml", "asyncio"]
    code = f"""import sys
from tpstream.cli.entry import run
run(["--help"])
sys.exit(str([name for name in {heavy} if name in sys.modules]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", [name for name in COMMANDS if (Path(entry.__file__).parent / f"{name}.py").exists()])
def test_every_command_has_its_file_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: tpstream {name}")


def test_without_arguments_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run([]) == 0
    assert "Usage: tpstream" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["foo"], "tpstream: no such command 'foo'; see `tpstream --help`"),
        (["settings", "--foo"], "tpstream: no such option: --foo; see `tpstream settings --help`"),
        (["devices", "show"], "tpstream: missing argument 'NUMBER'; see `tpstream devices show --help`"),
        (
            ["worker", "--roles", "juggle"],
            "tpstream: role 'juggle' is none of process, store; check --roles and TPSTREAM_ROLES",
        ),
        (
            ["--config", "/gone.toml", "settings"],
            "tpstream: cannot read settings /gone.toml: No such file or directory; check --config",
        ),
        (["apply", "/gone"], 'tpstream: /gone is no folder; give the folder whose app.toml says name = "…"'),
        (["send", "d1", "fan", "[1]"], """tpstream: PARAMS must be a JSON object; write it like '{"on": true}'"""),
    ],
)
def test_what_is_wrong_with_a_command_line_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{line}\n")


@pytest.mark.parametrize("command", ["up", "worker"])
def test_two_applications_with_python_are_refused_rather_than_one_forgotten(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.run([command, "--app", "/gone-a", "--app", "/gone-b"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("tpstream: --app is given 2 times, but one worker runs one application's Python; put ")
    assert "`tpstream apply DIR`" in err
    assert err.count("\n") == 1


def test_one_application_is_taken_and_none_leaves_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TPSTREAM_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TPSTREAM_APP", "/gone-set")
    for arguments, folder in ((["--app", "/gone-a"], "/gone-a"), ([], "/gone-set")):
        assert entry.run(["up", *arguments]) == 2
        assert f"{folder} is no application" in capsys.readouterr().err


def test_a_wrong_setting_is_named_but_help_still_comes() -> None:
    done = run("settings", TPSTREAM_MQTT_PORT="x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tpstream: TPSTREAM_MQTT_PORT='x' is not of type int\n"
    assert run("settings", "--help", TPSTREAM_MQTT_PORT="x").returncode == 0


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            ConfigurationError("a.yaml:1: wrong\nb.yaml:2: wrong"),
            2,
            "tpstream: a.yaml:1: wrong\ntpstream: b.yaml:2: wrong\n",
        ),
        (Unavailable("Kafka is away; start it"), 3, "tpstream: Kafka is away; start it\n"),
        (TpstreamError("no"), 1, "tpstream: no\n"),
        (ValueError("odd\nand more"), 1, "tpstream: unexpected ValueError: odd; TPSTREAM_DEBUG=1 shows where\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_each_kind_of_error_has_its_exit_code(
    error: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(type(root), "get_command", lambda *_: fail)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    monkeypatch.delenv("TPSTREAM_DEBUG", raising=False)
    assert entry.run(["health"]) == code
    assert capfd.readouterr().err == line


def test_the_trace_is_shown_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TPSTREAM_DEBUG", "1")
    assert entry.run(["apply", "/gone"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_settings_show_where_they_come_from_and_no_password() -> None:
    done = run("settings", TPSTREAM_STORE_PASSWORD="secret", TPSTREAM_PARTITIONS="3")
    assert "secret" not in done.stdout
    [line] = [line for line in done.stdout.splitlines() if "TPSTREAM_PARTITIONS" in line]
    assert line.split()[:3] == ["TPSTREAM_PARTITIONS", "3", "*"]

"""`tpstream worker` with several roles: a process each, and what becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

STAND_IN = r"""
import os, signal, sys, time
role = sys.argv[sys.argv.index("--roles") + 1]
end = os.environ.get("END_" + role)
if os.environ.get("STUBBORN") == role:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(1, f"{role}\n".encode())
time.sleep(0.3 if end else 60)
sys.exit(int(end or 0))
"""
"""What a role's process does here: says its role, then waits, or ends with END_role."""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A package `tpstream` that is found before ours by the processes of the roles."""
    package = tmp_path / "stand_in" / "tpstream"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    return package.parent


def start(stand_in: Path, **environ: str) -> subprocess.Popen[str]:
    """A supervisor of both roles; returns when both have said that they run."""
    code = f"""import os, sys
from tpstream.cli.worker import _supervise
from tpstream.settings import Settings
os.environ["PYTHONPATH"] = {str(stand_in)!r}
os.chdir({str(stand_in)!r})
sys.exit(_supervise(Settings(stop_seconds=1.0), ["process", "store"]))
"""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    assert {supervisor.stdout.readline().strip() for _ in range(2)} == {"process", "store"}
    return supervisor


def finish(supervisor: subprocess.Popen[str], children: list[psutil.Process]) -> tuple[int, str]:
    _, err = supervisor.communicate(timeout=10)
    _, alive = psutil.wait_procs(children, timeout=5)
    for one in alive:
        one.kill()
    assert not alive, "nothing is left running"
    return supervisor.returncode, err


@pytest.mark.parametrize(("status", "code"), [("0", 1), ("1", 1), ("2", 2), ("-9", 1)])
def test_where_one_role_ends_the_other_is_stopped(stand_in: Path, status: str, code: int) -> None:
    supervisor = start(stand_in, END_store="0" if status == "-9" else status)
    children = psutil.Process(supervisor.pid).children()
    if status == "-9":
        next(one for one in children if "store" in one.cmdline()).kill()
    returned, err = finish(supervisor, children)
    assert returned == code
    assert err.startswith(f"tpstream: the role store ended with code {status}; stopping the others")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_passed_on_and_is_no_failure(stand_in: Path, number: signal.Signals) -> None:
    supervisor = start(stand_in)
    children = psutil.Process(supervisor.pid).children()
    supervisor.send_signal(number)
    assert finish(supervisor, children) == (0, "")


def test_who_does_not_stop_is_killed(stand_in: Path) -> None:
    supervisor = start(stand_in, STUBBORN="process")
    children = psutil.Process(supervisor.pid).children()
    began = time.monotonic()
    supervisor.terminate()
    code, err = finish(supervisor, children)
    assert (code, err) == (0, "tpstream: the role process did not stop within 1 s and was killed\n")
    assert time.monotonic() - began < 5


def test_nobody_survives_a_supervisor_that_is_killed(stand_in: Path) -> None:
    supervisor = start(stand_in)
    children = psutil.Process(supervisor.pid).children()
    supervisor.kill()
    assert finish(supervisor, children)[0] == -signal.SIGKILL

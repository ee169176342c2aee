"""`tpstream worker`: the agents, one process per role."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import click

from tpstream.cli.context import app_option, pass_settings
from tpstream.embedded.lock import refuse_beside_up
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

ROLES = ("process", "store")
LOOK_SECONDS = 0.2


@click.command()
@click.option("--roles", help="process, store, or both.  [default: TPSTREAM_ROLES]")
@app_option("The application whose Python is imported.  [default: TPSTREAM_APP]")
@pass_settings
def worker(settings: Settings, roles: str | None, app: str | None) -> None:
    """Run the agents: decode, windows, rules and downlink (role process), and store.

    Several roles are as many processes; if one ends, the others are stopped. `tpstream up` starts
    workers of its own; this is for a Kafka and a store that run elsewhere.
    """
    names = _roles(settings.roles if roles is None else roles)
    refuse_beside_up(settings.data_dir)
    settings = replace(settings, roles=",".join(names), app=settings.app if app is None else app)
    if len(names) > 1:
        click.get_current_context().exit(_supervise(settings, names))
    from tpstream.observability import logs
    from tpstream.worker import run

    logs.set_up()
    run(settings)


def _roles(text: str) -> list[str]:
    names = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    for name in names:
        if name not in ROLES:
            raise ConfigurationError(f"role {name!r} is none of {', '.join(ROLES)}; check --roles and TPSTREAM_ROLES")
    if not names:
        raise ConfigurationError(f"a worker needs a role; set --roles to {' or '.join(ROLES)}, or both")
    return names


def _supervise(settings: Settings, names: list[str]) -> int:
    """Run each role in a process of its own until one ends (exit code 1, or its own 2), or until a signal (0)."""
    from tpstream.embedded.child import die_with_parent

    stopping = False

    def stop(_number: int, _frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    children = {
        name: subprocess.Popen(
            [sys.executable, "-m", "tpstream", "worker", "--roles", name],
            env=os.environ | settings.environ(),
            process_group=0,  # Ctrl+C is for us alone; we pass it on in order
            preexec_fn=die_with_parent(os.getpid()),
        )
        for name in names
    }
    ended = None
    while not stopping and ended is None:
        time.sleep(LOOK_SECONDS)
        ended = next((name for name, child in children.items() if child.poll() is not None), None)
    code = 0
    if ended is not None and not stopping:
        status = children[ended].returncode
        code = status if status == 2 else 1
        click.echo(f"tpstream: the role {ended} ended with code {status}; stopping the others", err=True)
    _stop(children, settings.stop_seconds)
    return code


def _stop(children: dict[str, subprocess.Popen[bytes]], seconds: float) -> None:
    """SIGTERM to all, SIGKILL to who is still there after `seconds`."""
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + seconds
    for name, child in children.items():
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            click.echo(f"tpstream: the role {name} did not stop within {seconds:g} s and was killed", err=True)
            child.kill()
            child.wait()

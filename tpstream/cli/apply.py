"""`tpstream apply DIR`: check and publish an application."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import click
import msgspec

from tpstream.cli import output, processes
from tpstream.cli.context import json_option, pass_settings
from tpstream.settings import Settings


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only check; publish nothing, and need no Kafka.")
@json_option
@pass_settings
def apply(settings: Settings, directory: Path, check: bool, as_json: bool) -> None:
    """Check and publish an application folder: app.toml, profiles/*.yaml, scripts/*.lua, rules/*.yaml.

    What is published is live on every worker within a second. If anything is wrong all of it
    is refused, each problem with its file and line, and what runs stays. Python is checked
    here, and runs once `tpstream up --app DIR` (or `tpstream worker --app DIR`) is started with it.
    """
    from tpstream.devices import application, publish

    if check:
        found = application.load(directory, settings)
        counts = {kind: len(getattr(found, kind)) for kind in application.KINDS}
        counts["windows"] = len(found.declared.windows)
        if as_json:
            output.as_json({"app": found.name, "version": found.release(0).version, **counts})
        else:
            click.echo(f"{found.name}: all is well ({', '.join(f'{kind} {n}' for kind, n in counts.items())})")
        return
    changes = asyncio.run(publish.apply(settings, directory))
    none = processes.Workers([], [])
    workers = processes.workers(settings, changes.app, changes.package) if changes.package else none
    if as_json:
        found_workers = {"workers": workers.found, "stale_workers": workers.stale}
        output.as_json({**msgspec.to_builtins(changes), "nothing": changes.nothing, **found_workers})
        return
    click.echo(str(changes))
    start = f"`tpstream up --app {shlex.quote(str(directory))}` (or `tpstream worker --app …`)"
    if changes.package and not workers.found:
        click.echo(
            f"  no running worker is found under {settings.data_dir.absolute()}, so whether its Python (version "
            f"{changes.package}) runs is not known; set TPSTREAM_DATA_DIR to the workers' folder, or start {start}"
        )
    elif workers.stale:
        click.echo(
            f"  its Python (version {changes.package}) does not run yet in: {', '.join(workers.stale)}; "
            f"start again with {start}"
        )

"""`tpstream up`: everything on this machine, as one process group."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tpstream.cli.context import app_option
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

if TYPE_CHECKING:
    from tpstream.embedded.part import Part

_ANY_KAFKA: dict[str, Any] = {
    "trusted_identity": "login,topic",
    "register_on_first_sight": True,
}

DEFAULTS: dict[str, Any] = _ANY_KAFKA | {
    "session_timeout": 3.0,  # the embedded broker holds a join for half of it
    # The embedded broker's fetches cost more with each batch it holds (docs/decisions/0005): fewer, larger ones.
    "partitions": 2,
}
"""What `up` sets otherwise than a production bridge or worker, unless the user has set it.

The last two are for the embedded broker alone; a real one may refuse such a session timeout.
"""

EXAMPLE = Path("examples/greenhouse")


@click.command()
@click.option("--simulate", is_flag=True, help="Add a fleet of simulated greenhouses.")
@app_option(
    "The application to apply and run.  [--simulate: the greenhouse example]",
    click.Path(path_type=Path, file_okay=False),
)
@click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Instead of ./var.")
@click.option(
    "--kafka",
    type=click.Choice(["embedded", "apache"]),
    help="Start the embedded broker, in memory (the default), or Apache Kafka, on disk (`make kafka` brings it).",
)
@click.pass_context
def up(context: click.Context, simulate: bool, app: Path | None, data_dir: Path | None, kafka: str | None) -> int:
    """Run everything on this machine: store, Kafka, bridge, workers.

    Ctrl+C stops in order and loses nothing. The store, the state and what you configured are kept
    in TPSTREAM_DATA_DIR; with TPSTREAM_KAFKA a Kafka of your own is used instead of the embedded one.
    """
    config = context.parent.params.get("config") if context.parent else None
    settings = load(kafka, config=config, data_dir=data_dir, app=app and str(app))
    settings = replace(settings, data_dir=settings.data_dir.absolute(), app=_application(settings, simulate))
    from tpstream.embedded.parts import parts

    return run(settings, parts(settings, simulate=simulate, real_kafka=kafka == "apache"), config)


def load(kafka: str | None, environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings of `up --kafka KAFKA`; `given` as for `Settings.load`.

    State that is there already says how many partitions there are, also to the other broker.
    """
    settings = Settings.load(environ, defaults=_ANY_KAFKA, **given)
    embedded = kafka == "embedded" or (kafka is None and not settings.kafka)
    defaults = (DEFAULTS if embedded else _ANY_KAFKA) | _pinned(settings.data_dir)
    settings = Settings.load(environ, defaults=defaults, **given)
    return settings if kafka is None else replace(settings, kafka="")


def _pinned(data_dir: Path) -> dict[str, Any]:
    """The number of partitions that workers have kept state with, if they have (`tpstream.bus.state`)."""
    for pin in data_dir.glob("state/*/partitions"):
        with suppress(OSError, ValueError):
            return {"partitions": int(pin.read_text())}
    return {}


def run(settings: Settings, wanted: dict[str, Part], config: Path | None = None) -> int:
    """Hold the data directory and its ports, and supervise until told to stop; the exit code.

    `config` is the file that the settings are from, to show it in the commands to try.
    """
    from tpstream.embedded import parts, ports, summary
    from tpstream.embedded.lock import Lock
    from tpstream.embedded.part import PartFailed
    from tpstream.embedded.supervisor import Supervisor

    began = time.monotonic()
    names = set(wanted)

    def started() -> None:
        click.secho(f"\ntpstream is ready ({time.monotonic() - began:.1f} s)", bold=True)
        program = summary.program() + (f" --config {shlex.quote(str(config))}" if config else "")
        forgets = any(part.forgets for part in wanted.values())
        click.echo(summary.summary(settings, names, program=program, publisher=summary.publisher(), forgets=forgets))

    async def supervise() -> int:
        return await Supervisor(settings, wanted, say, started=started).run()

    with Lock(settings.data_dir):
        ports.check(settings.host, parts.ports(settings, names))
        _quiet()
        try:
            return asyncio.run(supervise())
        except PartFailed as error:
            for line in error.tail:
                click.echo(f"    {line}", err=True)
            click.echo(f"tpstream: {error}", err=True)
            return error.code


def say(name: str, text: str) -> None:
    """A line on the terminal."""
    click.echo(f"  {name:<14}{text}")


def _application(settings: Settings, simulate: bool) -> str:
    if settings.app:
        folder = Path(settings.app)
        if not (folder / "app.toml").is_file():
            raise ConfigurationError(f"{folder} is no application: it has no app.toml; check --app")
        return str(folder.absolute())
    if not simulate:
        return ""
    checkout = Path(__file__).resolve().parents[2]
    folder = checkout / EXAMPLE
    if not folder.is_dir():
        raise ConfigurationError(
            f"--simulate runs {EXAMPLE} of the checkout, which is not here; name one with --app DIR"
        )
    return str(folder)


def _quiet() -> None:
    """The parts log to files; here a person reads only our own lines and what is an error."""
    import logging

    logging.basicConfig(level=logging.ERROR, format="  %(message)s")
    for noisy in ("aiokafka", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)

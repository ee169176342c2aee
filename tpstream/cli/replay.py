"""`tpstream replay`: publish a CSV as devices over MQTT."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import click

from tpstream.cli.context import pass_settings
from tpstream.settings import Settings
from tpstream.simulator.csv_messages import csv_file
from tpstream.simulator.replay import Replay


class Speed(click.ParamType):
    """A positive number, or `max` (None)."""

    name = "N|max"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Read the option."""
        if value == "max":
            return None
        try:
            number = float(str(value))
        except ValueError:
            number = 0.0
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is no speed; write a positive number, or max", param, ctx)
        return number


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--device", required=True, metavar="COLUMN|NUMBER", help="The column with the device, or one number.")
@click.option("--ts", required=True, metavar="COLUMN", help="The column with the time.")
@click.option("--keys", multiple=True, metavar="A,B,…", help="The columns to send.  [default: all others]")
@click.option("--speed", type=Speed(), default="max", show_default=True, help="Times as fast as it happened.")
@click.option("--host", default=None, help="Where devices connect to.  [default: TPSTREAM_HOST]")
@click.option("--port", default=None, type=int, help="MQTT port.  [default: TPSTREAM_MQTT_PORT]")
@pass_settings
def replay(
    settings: Settings,
    file: Path,
    device: str,
    ts: str,
    keys: tuple[str, ...],
    speed: float | None,
    host: str | None,
    port: int | None,
) -> None:
    """Publish the rows of a CSV as telemetry, in order, at QoS 1.

    The time column is ISO 8601 (UTC where it names no zone) or seconds or milliseconds since
    1970. The whole file is checked before anything is sent.

    \b
    tpstream replay weather.csv --device station --ts time --speed 3600
    tpstream replay weather.csv --device seattle --ts date --keys temp
    """
    names = [name.strip() for part in keys for name in part.split(",") if name.strip()]
    rows = csv_file(file, device=device, ts=ts, keys=names)
    devices: set[str] = set()
    count = 0
    for message in rows.messages():
        devices.add(message.device)
        count += 1
    started = monotonic()
    with click.progressbar(length=count, label=f"{file.name}", show_pos=True) as bar:
        run = Replay(
            rows.messages(),
            host or settings.host,
            port or settings.mqtt_port,
            speed=speed,
            login=device if rows.device is None else None,
            acknowledged=lambda _: bar.update(1),
            say=lambda line: click.echo(f"\n{line}", err=True),
        )
        asyncio.run(run.run())
    seconds = monotonic() - started
    who = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
    click.echo(f"{count} messages of {who} sent and acknowledged in {seconds:.1f} s")

"""`tpstream simulate`: a fleet of greenhouses on real MQTT connections."""

from __future__ import annotations

import asyncio
import contextlib
import signal

import click

from tpstream.cli.context import pass_settings
from tpstream.settings import Settings
from tpstream.simulator.fleet import simulate as run_fleet


@click.command()
@click.option("--devices", default=6, show_default=True, type=click.IntRange(1, 10_000), help="How many devices.")
@click.option(
    "--interval", default=1.0, show_default=True, type=click.FloatRange(0.01), help="Seconds between readings."
)
@click.option("--prefix", default="greenhouse", show_default=True, help="What device numbers begin with.")
@click.option("--host", default=None, help="Where devices connect to.  [default: TPSTREAM_HOST]")
@click.option("--port", default=None, type=int, help="MQTT port.  [default: TPSTREAM_MQTT_PORT]")
@click.option("--seed", default=None, type=int, help="Makes weather and noise repeatable.")
@pass_settings
def simulate(
    settings: Settings,
    devices: int,
    interval: float,
    prefix: str,
    host: str | None,
    port: int | None,
    seed: int | None,
) -> None:
    """Run a fleet of greenhouses that heat up in the sun and obey the command fan.

    Of three devices two send JSON (greenhouse-1, …) and one six bytes (greenhouse-bin-1, …).
    Runs until Ctrl+C or SIGTERM; reconnects for ever.
    """

    async def run() -> None:
        task = asyncio.current_task()
        assert task is not None
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, task.cancel)
        await run_fleet(
            host or settings.host,
            port or settings.mqtt_port,
            devices=devices,
            interval=interval,
            prefix=prefix,
            seed=seed,
            say=click.echo,
        )

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(run())

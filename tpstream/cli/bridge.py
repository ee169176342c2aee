"""`tpstream bridge`: the MQTT bridge."""

from __future__ import annotations

import click

from tpstream.cli.context import pass_settings
from tpstream.settings import Settings


@click.command()
@pass_settings
def bridge(settings: Settings) -> None:
    """Run the MQTT bridge: devices in, Kafka out, and back.

    TPSTREAM_BRIDGE_WAY says whether devices connect here (endpoint) or to a broker.
    """
    from connectors.mqtt_bridge.service import main
    from tpstream.observability import logs

    logs.set_up()
    main(settings)

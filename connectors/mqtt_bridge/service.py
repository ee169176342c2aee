"""`tpstream bridge`: the bridge as a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

from connectors.mqtt_bridge.bridge import Bridge
from tpstream.bus import connection
from tpstream.settings import Settings

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then stop in good order (within 5 s).

    Raises ConfigurationError: a setting is wrong, or a port is taken.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    bridge = Bridge(settings)
    starting = loop.create_task(bridge.start())
    waiting = loop.create_task(asked.wait())
    try:
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await waiting
    finally:
        waiting.cancel()
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await starting
        await bridge.stop()


def main(settings: Settings) -> None:
    """`run` on uvloop where it is installed: a third less CPU per message."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(settings))
    else:
        connection.mend()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))

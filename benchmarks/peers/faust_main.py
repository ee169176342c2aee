"""A Faust app as its documentation makes it: uvloop, RocksDB, no web."""

from __future__ import annotations

import asyncio
import logging

import faust
import uvloop


def make(name: str, bootstrap: str, folder: str) -> faust.App:
    """An app with Faust's own defaults but for where things are."""
    return faust.App(
        name,
        broker=f"kafka://{bootstrap}",
        store="rocksdb://",
        datadir=folder,
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
        topic_partitions=8,
    )


async def _forever(app: faust.App) -> None:
    await app.start()
    await app.wait_until_stopped()


def main(app: faust.App) -> None:
    """Run it until the process is stopped."""
    logging.basicConfig(level=logging.WARNING)
    uvloop.install()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_forever(app))

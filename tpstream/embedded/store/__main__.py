"""`python -m tpstream.embedded.store`: serve the store until SIGTERM or SIGINT; exit 0 then, 1 on an error."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from tpstream.embedded.store.engine import Engine
from tpstream.embedded.store.faults import Fault
from tpstream.embedded.store.front import Front
from tpstream.errors import TpstreamError
from tpstream.settings import Settings

GRACE = 3.0
"""Seconds that running queries get at the end."""


def lock(folder: Path) -> int:
    """Keep the folder for this process. Raises TpstreamError where another has it, or it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise TpstreamError(
            f"store: cannot use {folder}: {error.strerror}; give it a folder that it may write (TPSTREAM_DATA_DIR)"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(handle)
        raise TpstreamError(
            f"store: {folder / 'store'} is in use by process {holder}; stop it, or set another TPSTREAM_DATA_DIR"
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


async def serve(settings: Settings) -> None:
    """Serve until told to stop. Raises TpstreamError where that cannot begin."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    engine = Engine(settings.data_dir.resolve() / "store")
    try:
        await asyncio.to_thread(engine.open)
    except Fault as error:
        raise TpstreamError(f"store: {engine.path} cannot be opened: {error}") from None
    front = Front(settings, engine)
    await front.prepare()
    # Bodies are unpacked by us: aiohttp knows neither lz4 nor several frames in a row.
    runner = web.AppRunner(front.app(), handler_cancellation=True, access_log=None, auto_decompress=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.store_port, shutdown_timeout=GRACE)
        try:
            await site.start()
        except OSError as error:
            raise TpstreamError(
                f"store: port {settings.store_port} on {settings.host} cannot be used: {error.strerror};"
                " stop what holds it, or set TPSTREAM_STORE_PORT"
            ) from None
        print(f"store: ClickHouse {front.version} on http://{settings.host}:{settings.store_port}", flush=True)
        await stop.wait()
        print("store: stopping", flush=True)
        await site.stop()
    finally:
        with contextlib.suppress(Exception):
            await engine.close(GRACE)
        await runner.cleanup()


def main() -> int:
    """Run the store; the exit code."""
    try:
        settings = Settings.load()
        lock(settings.data_dir.resolve())
        asyncio.run(serve(settings))
    except TpstreamError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # The engine's own threads may take long over nothing once all is on disk.
    os._exit(code)

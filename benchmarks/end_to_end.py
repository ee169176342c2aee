"""Device to row and device to command, through everything, on this machine.

50 devices, QoS 1, up to 20 in flight each, three points a message: first 1,000 messages a second
(latency), then 5,000 (does it keep up?). The CPU of each part is read before and after; the load generator is
a process of its own and is shown beside them.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Iterator

import aiohttp
import msgspec

from benchmarks.figure import Figure
from benchmarks.load import Report
from benchmarks.platform import Platform
from benchmarks.probes import CommandProbes, RowProbes, running

RUNS = ((1_000, 20.0), (5_000, 30.0))
DEVICES = 50
WARM_UP = (500, 5.0)
CATCH_UP_SECONDS = 60.0


class Run(msgspec.Struct, frozen=True):
    """What one run showed."""

    load: Report
    rows: int
    distinct: int
    lag_seconds: float
    """From the last PUBACK until the last row was seen."""
    cpu_us: dict[str, float]
    row_p50: float
    row_p99: float
    command_p50: float
    command_p99: float
    commands: int
    rest_p50: float
    rest_p99: float
    memory_mb: dict[str, float]


def run() -> Iterator[Figure]:
    """Start the platform, measure, stop it. Raises RuntimeError if it is not well."""
    with Platform() as platform:
        asyncio.run(measure(platform, *WARM_UP, name="warm-up", first_id=1))
        first_id = 1_000_000_000
        for rate, seconds in RUNS:
            measured = asyncio.run(measure(platform, rate, seconds, name=str(rate), first_id=first_id))
            first_id += 1_000_000_000
            yield from figures(rate, measured)


async def measure(platform: Platform, rate: int, seconds: float, *, name: str, first_id: int) -> Run:
    """One run of the load with its probes."""
    mqtt = platform.ports["MQTT_PORT"]
    rows, commands = RowProbes(mqtt, platform.store, name), CommandProbes(mqtt, platform.web, name)
    async with running(rows, commands):
        await asyncio.sleep(2)
        before = platform.cpu_seconds()
        load = await _load(mqtt, rate, seconds, name, first_id)
        ended = time.perf_counter()
        while (stored := await _stored(platform.store, name))[0] < load.sent:
            if time.perf_counter() - ended > CATCH_UP_SECONDS:
                break
            await asyncio.sleep(0.05)
        lag = time.perf_counter() - ended
        after = platform.cpu_seconds()
    cpu = {part: round((after[part] - before.get(part, 0.0)) / load.sent * 1e6, 1) for part in sorted(after)}
    return Run(
        load=load,
        rows=stored[0],
        distinct=stored[1],
        lag_seconds=round(lag, 2),
        cpu_us=cpu | {"load generator": load.cpu_us_per_message},
        row_p50=rows.latencies.quantile(0.5),
        row_p99=rows.latencies.quantile(0.99),
        command_p50=commands.latencies.quantile(0.5),
        command_p99=commands.latencies.quantile(0.99),
        commands=len(commands.latencies.seconds),
        rest_p50=commands.from_rest.quantile(0.5),
        rest_p99=commands.from_rest.quantile(0.99),
        memory_mb=platform.memory_mb(),
    )


def figures(rate: int, run: Run) -> Iterator[Figure]:
    """A run as figures."""
    name = f"end to end, {rate} msg/s asked"
    load = run.load
    yield Figure(
        bench=f"{name}: device to row, sustained",
        value=load.per_second if run.rows == load.sent else round(run.rows / (load.seconds + run.lag_seconds), 1),
        unit="msg/s",
        cpu_us_per_message=run.cpu_us,
        note=f"sent {load.sent}, rows {run.rows}, distinct {run.distinct}, most behind {load.most_behind}",
    )
    yield Figure(bench=f"{name}: lag at the end", value=run.lag_seconds, unit="s", note="last PUBACK to last row")
    total = round(sum(run.cpu_us.values()), 1)
    yield Figure(bench=f"{name}: CPU, all processes", value=total, unit="µs", cpu_us_per_message=total)
    for what, value in (
        ("device to PUBACK, p50", load.puback_ms_p50 / 1000),
        ("device to PUBACK, p99", load.puback_ms_p99 / 1000),
        ("device to row, p50", run.row_p50),
        ("device to row, p99", run.row_p99),
        ("device to command, p50", run.command_p50),
        ("device to command, p99", run.command_p99),
        ("REST to device, p50", run.rest_p50),
        ("REST to device, p99", run.rest_p99),
    ):
        if math.isnan(value):
            raise RuntimeError(f"{name}: nothing was measured of {what}")
        note = f"{run.commands} commands" if "command" in what else ""
        yield Figure(bench=f"{name}: {what}", value=round(value, 3), unit="s", note=note)
    for part, size in run.memory_mb.items():
        yield Figure(bench=f"{name}: memory of {part}", value=size, unit="MB")


async def _load(port: int, rate: int, seconds: float, name: str, first_id: int) -> Report:
    options = ["--port", port, "--rate", rate, "--seconds", seconds, "--devices", DEVICES]
    options += ["--prefix", f"load-{name}", "--first-id", first_id]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.load", *map(str, options)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    if process.returncode:
        raise RuntimeError(err.decode().strip() or f"the load ended with {process.returncode}")
    return msgspec.json.decode(out, type=Report)


async def _stored(store: str, name: str) -> tuple[int, int]:
    query = (
        "SELECT count(), uniqExact(number) FROM telemetry "
        f"WHERE tenant = 'default' AND device LIKE 'load-{name}-%' AND key = 'id' FORMAT JSONCompactEachRow"
    )
    async with aiohttp.ClientSession() as session, session.post(store, data=query) as answer:
        body = await answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the store refused the ledger's query: {body[:200].decode()}")
    rows, distinct = msgspec.json.decode(body)
    return int(rows), int(distinct)

"""What it costs to read each point once: dashboards' queries over the ways to remove duplicates.

A store of its own is filled with days of 1,000 devices with ten keys each (`benchmarks/history.py`) and
2 % of that again. Then every query runs over every way, first as inserts left the table, then
after OPTIMIZE FINAL. 3,312,000 points a day; `TPSTREAM_BENCH_DAYS` (3; 30 for a hundred million).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil
from clickhouse_connect.driver.exceptions import ClickHouseError

from benchmarks.figure import Figure
from benchmarks.history import BEGIN, DAY, fill
from benchmarks.platform import free_ports
from tpstream.messages import Point, Telemetry
from tpstream.settings import Settings
from tpstream.storage import columns
from tpstream.storage.sinks import Store

ROUNDS = 3
MESSAGES = 330_000
LIMITS = {"max_execution_time": 120, "max_memory_usage": 6_000_000_000}
_IDENTITY = "tenant, device, key, ts, source"
_COLUMNS = "tenant, device, key, ts, kind, number, received_at, source_offset, source_index"

WAYS = {
    "rows as inserted": "telemetry_rows",
    "FINAL": f"(SELECT {_COLUMNS} FROM telemetry_rows FINAL)",
    "FINAL by table partition": f"(SELECT {_COLUMNS} FROM telemetry_rows FINAL"
    " SETTINGS do_not_merge_across_partitions_select_final = 1)",
    "telemetry": "telemetry",
    "LIMIT 1 BY": f"(SELECT {_COLUMNS} FROM telemetry_rows ORDER BY {_IDENTITY}, rank DESC LIMIT 1 BY {_IDENTITY})",
    "argMax": "(SELECT tenant, device, key, ts, argMax(kind, rank) AS kind, argMax(number, rank) AS number"
    f" FROM telemetry_rows GROUP BY {_IDENTITY} SETTINGS optimize_aggregation_in_order = 1)",
}
"""What stands for the table of points in a query; the first removes nothing and is the measure."""


def queries(days: int) -> dict[str, str]:
    """Queries over `{t}`, by name; the last day is the newest."""
    last = BEGIN + (days - 1) * DAY

    def since(ms: int) -> str:
        return f"ts >= fromUnixTimestamp64Milli({ms}, 'UTC')"

    ten = ", ".join(f"'device-{n * 97:04d}'" for n in range(10))
    return {
        "last hour of a device": "SELECT key, ts, number FROM {t} WHERE tenant = 'default' AND device = 'device-0123'"
        f" AND {since(last + DAY - 3_600_000)} ORDER BY key, ts",
        "a day's means per minute, 10 devices": "SELECT device, toStartOfMinute(ts) AS m, avg(number) FROM {t}"
        f" WHERE tenant = 'default' AND device IN ({ten}) AND key = 'k0' AND {since(last)} GROUP BY device, m",
        "a day's means per hour, all devices": "SELECT device, toStartOfHour(ts) AS h, avg(number) FROM {t}"
        f" WHERE tenant = 'default' AND key = 'k0' AND {since(last)} GROUP BY device, h",
        "count and mean of all": "SELECT count(), avg(number) FROM {t} WHERE tenant = 'default'",
    }


def rolled(days: int) -> dict[str, str]:
    """Queries over the roll-ups."""
    last = BEGIN + (days - 1) * DAY
    moment = f"ts >= fromUnixTimestamp64Milli({last}, 'UTC')"
    return {
        "telemetry_minute: a day of a key": "SELECT ts, sum / count FROM telemetry_minute WHERE tenant = 'default'"
        f" AND device = 'device-0123' AND key = 'k0' AND {moment}",
        "telemetry_hour: the whole history of a key": "SELECT ts, sum / count FROM telemetry_hour"
        " WHERE tenant = 'default' AND device = 'device-0123' AND key = 'k0'",
        "telemetry_hour: a day of a key, all devices": "SELECT device, ts, sum / count FROM telemetry_hour"
        f" WHERE tenant = 'default' AND key = 'k0' AND {moment}",
        "telemetry_hour: everything": "SELECT count(), sum(count), max(max) FROM telemetry_hour"
        " WHERE tenant = 'default'",
        "telemetry_latest: all devices": "SELECT device, key, ts, number FROM telemetry_latest"
        " WHERE tenant = 'default'",
    }


async def _tables(settings: Settings) -> None:
    await (await Store.connect(settings)).close()


class OwnStore:
    """An embedded store with the schema, in a folder that goes with it."""

    def __enter__(self) -> OwnStore:
        self.folder = Path(tempfile.mkdtemp(prefix="tpstream-bench-store-"))
        port = free_ports(1)[0]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TPSTREAM_")}
        self.settings = Settings(store_port=port, data_dir=self.folder)
        environ |= self.settings.environ()
        command = [sys.executable, "-m", "tpstream.embedded.store"]
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).read()
                break
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the embedded store did not start") from None
                time.sleep(0.1)
        self.client: Any = clickhouse_connect.get_client(host="127.0.0.1", port=port, send_receive_timeout=1200)
        asyncio.run(_tables(self.settings))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(client: Any, process: psutil.Process, sql: str) -> tuple[float, float]:
    """Seconds of the wall clock and of the engine's CPU, the best of some rounds; raises ClickHouse's errors."""
    wall, cpu = float("inf"), float("inf")
    for _ in range(ROUNDS):
        times, began = process.cpu_times(), time.monotonic()
        client.raw_query(sql, settings=LIMITS, fmt="Native")
        wall = min(wall, time.monotonic() - began)
        after = process.cpu_times()
        cpu = min(cpu, after.user + after.system - times.user - times.system)
    return wall, cpu


def read(client: Any, process: psutil.Process, days: int, state: str) -> Iterator[Figure]:
    """Each query over each way."""
    asked = [
        (f"{name} · {way}", name, sql.format(t=t)) for name, sql in queries(days).items() for way, t in WAYS.items()
    ]
    asked += [(name, name, sql) for name, sql in rolled(days).items()]
    base: dict[str, float] = {}
    for title, name, sql in asked:
        try:
            wall, cpu = measure(client, process, sql)
        except ClickHouseError as error:
            yield Figure(bench=f"{state}: {title}", value=-1, unit="ms", note=str(error)[:120])
            continue
        base.setdefault(name, wall)
        yield Figure(
            bench=f"{state}: {title}",
            value=round(wall * 1000, 1),
            unit="ms",
            peer="rows as inserted" if name in queries(days) else None,
            ratio=round(wall / base[name], 2) if name in queries(days) else None,
            note=f"{cpu * 1000:.0f} ms of CPU",
        )


async def write(settings: Settings, process: psutil.Process) -> AsyncIterator[Figure]:
    """Points through columns, sink, HTTP and engine, in inserts of 99,000; then the same ones again."""
    keys, batch, inserts = ("temperature", "humidity", "battery"), 1_000, 33
    own = psutil.Process()
    store = await Store.connect(settings)
    for title in ("written", "written again"):
        before, engine, began = own.cpu_times(), process.cpu_times(), time.monotonic()
        for n in range(MESSAGES // batch):
            numbers = range(n * batch, (n + 1) * batch)
            messages = [
                Telemetry(f"d{i % 1000}", tuple(Point(key, BEGIN - DAY + i // 1000, i / 7) for key in keys))
                for i in numbers
            ]
            store.telemetry.add(columns.telemetry(messages, [(bytes(16), 0, i, 0) for i in numbers], [BEGIN] * batch))
            if (n + 1) % inserts == 0:
                await store.telemetry.flush()
        await store.telemetry.flush()
        wall, after, done = time.monotonic() - began, own.cpu_times(), process.cpu_times()
        points = MESSAGES * len(keys)
        cpu = {
            "client": (after.user + after.system - before.user - before.system) / MESSAGES * 1e6,
            "engine": (done.user + done.system - engine.user - engine.system) / MESSAGES * 1e6,
        }
        yield Figure(
            bench=f"points {title}",
            value=round(points / wall),
            unit="points/s",
            cpu_us_per_message={name: round(value, 2) for name, value in cpu.items()},
            note="three points a message; the client's CPU includes making the messages",
        )
    await store.close()


async def _all(figures: AsyncIterator[Figure]) -> list[Figure]:
    return [figure async for figure in figures]


def run() -> Iterator[Figure]:
    """Writing, then all queries, not merged and merged."""
    days = int(os.environ.get("TPSTREAM_BENCH_DAYS", "3"))
    with OwnStore() as store:
        process = psutil.Process(store.process.pid)
        yield from asyncio.run(_all(write(store.settings, process)))
        store.client.command("TRUNCATE TABLE telemetry_rows")
        began = time.monotonic()
        fill(store.client, days, repeated=50)
        count = store.client.command("SELECT count() FROM telemetry_rows")
        yield Figure(bench="rows with repeats", value=count, unit="rows", note=f"in {time.monotonic() - began:.0f} s")
        store.client.command("SYSTEM STOP MERGES telemetry_rows")
        yield from read(store.client, process, days, "not merged")
        store.client.command("SYSTEM START MERGES telemetry_rows")
        began = time.monotonic()
        store.client.command("OPTIMIZE TABLE telemetry_rows FINAL")
        yield Figure(bench="OPTIMIZE FINAL", value=round(time.monotonic() - began, 1), unit="s")
        yield from read(store.client, process, days, "merged")


if __name__ == "__main__":
    for figure in run():
        print(figure.line(), flush=True)

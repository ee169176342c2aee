"""(d, f) Full workers: decode, windows and rule, then the store, three points a message, JSON and Lua.

The role process and the role store run one after the other on the same core, with the broker and the
store on the other: what each needs of a core is what counts; together on two cores the slower one is the rate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import parts
from benchmarks.broker import Broker
from benchmarks.figure import Figure
from benchmarks.subject import Subject
from benchmarks.uplink import POINTS, Uplink

COUNT = 500_000
RUNS = (("JSON", Uplink(1_000, COUNT)), ("Lua", Uplink(1_000, COUNT, binary=True)))


def run() -> Iterator[Figure]:
    """Each kind of payload on a broker and a store of its own."""
    for name, uplink in RUNS:
        with Broker() as broker:
            settings = parts.settings_for(broker, "worker")
            uplink.write(broker.bootstrap)
            with parts.store(settings) as store:
                environ = settings.environ()
                log = broker.folder / "process.log"
                with Subject(parts.worker("process", "decode", "windows"), log, environ) as subject:
                    process = subject.measure(uplink.count)
                log = broker.folder / "store.log"
                with Subject(parts.worker("store"), log, environ) as subject:
                    kept = subject.measure(uplink.count * POINTS)
                    rows = store.count("telemetry") if _settled(store, uplink.count * POINTS) else -1
            if rows < 0:
                yield Figure(bench=f"whole: {name}", value=0, unit="msg/s", note="void: rows are missing in the store")
                continue
            cpu = {"process": process.cpu_us, "store": round(kept.cpu_us * POINTS, 2)}
            yield Figure(
                bench=f"whole: decode, windows, rule and store, three points a message, {name}",
                value=min(process.rate, round(kept.rate / POINTS)),
                unit="msg/s",
                cpu_us_per_message=cpu | {"both": round(sum(cpu.values()), 2)},
                note=f"process {process.rate} msg/s, store {round(kept.rate / POINTS)} msg/s, each alone on a core; "
                f"{rows} rows as published; RSS {process.rss_mb:.0f} and {kept.rss_mb:.0f} MB; "
                f"load average {process.load} and {kept.load}",
            )


def _settled(store: parts.Store, rows: int, seconds: float = 60.0) -> bool:
    """Whether a reader of the store comes to see this many rows."""
    deadline = time.monotonic() + seconds
    while (found := store.count("telemetry")) != rows and time.monotonic() < deadline:
        time.sleep(1.0)
    return found == rows

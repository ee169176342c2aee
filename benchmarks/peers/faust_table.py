"""Stock Faust: a table with a key per device, on RocksDB.   BOOTSTRAP TOPIC FOLDER

It says on its log how long recovery took, from the assignment to the table's word.
"""

from __future__ import annotations

import sys
import time

import faust

from benchmarks.peers.faust_main import main, make
from benchmarks.subjects.progress import Progress

bootstrap, source, folder = sys.argv[1:4]
app = make("bench-faust-table", bootstrap, folder)
topic = app.topic(source, key_type=str, key_serializer="raw", value_serializer="json")
sums = app.Table("sums", default=lambda: [0.0, 0, 0], partitions=8)
progress = Progress()
began: list[float] = []


@app.agent(topic)
async def add(stream: faust.StreamT[dict[str, object]]) -> None:
    """Sum, count and newest time of each device."""
    async for device, value in stream.items():
        total, count, _ = sums[device]
        sums[device] = [total + value["temperature"], count + 1, value["ts"]]
        progress.count += 1


@app.on_partitions_assigned.connect
async def assigned(app: faust.App, assigned: object, **_: object) -> None:
    """Recovery begins."""
    began.append(time.monotonic())


@sums.on_recover
async def recovered() -> None:
    """Recovery is done."""
    print(f"recovered in {time.monotonic() - began[-1]:.2f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(app)

"""Stock Faust: a ten-second tumbling mean per device, on RocksDB with a changelog.   BOOTSTRAP TOPIC FOLDER"""

from __future__ import annotations

import sys

import faust

from benchmarks.peers.faust_main import main, make
from benchmarks.subjects.progress import Progress

bootstrap, source, folder = sys.argv[1:4]
app = make("bench-faust-tumbling", bootstrap, folder)
topic = app.topic(source, key_type=str, key_serializer="raw", value_serializer="json")
means = app.Table("means", default=lambda: [0.0, 0], partitions=8).tumbling(10.0, expires=86_400.0)
progress = Progress()


@app.agent(topic)
async def fold(stream: faust.StreamT[dict[str, object]]) -> None:
    """Sum and count of the window of each reading; the record's time is the reading's."""
    async for device, value in stream.items():
        total, count = means[device].value()
        means[device] = [total + value["temperature"], count + 1]
        progress.count += 1


if __name__ == "__main__":
    main(app)

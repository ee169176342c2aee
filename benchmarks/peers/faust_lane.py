"""Stock Faust: `async for`, orjson on every message.   BOOTSTRAP TOPIC FOLDER"""

from __future__ import annotations

import sys

import faust
import orjson

from benchmarks.peers.faust_main import main, make
from benchmarks.subjects.progress import Progress

bootstrap, source, folder = sys.argv[1:4]
app = make("bench-faust-lane", bootstrap, folder)
topic = app.topic(source, value_serializer="raw")
progress = Progress()


@app.agent(topic)
async def decode(stream: faust.StreamT[bytes]) -> None:
    """Decode and count."""
    async for value in stream:
        orjson.loads(value)
        progress.count += 1


if __name__ == "__main__":
    main(app)

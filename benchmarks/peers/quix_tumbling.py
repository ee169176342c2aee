"""Quix Streams: a ten-second tumbling mean per device, on RocksDB with a changelog.   BOOTSTRAP TOPIC FOLDER"""

from __future__ import annotations

import sys
from datetime import timedelta

import orjson
from progress import Progress
from quixstreams import Application

bootstrap, source, folder = sys.argv[1:4]
app = Application(
    broker_address=bootstrap,
    consumer_group="bench-quix",
    auto_offset_reset="earliest",
    state_dir=folder,
    consumer_extra_config={"fetch.queue.backoff.ms": 10},
    loglevel="WARNING",
)
readings = app.topic(
    source,
    key_deserializer="str",
    value_deserializer="bytes",
    timestamp_extractor=lambda value, headers, timestamp, kind: timestamp,
)
results = app.topic("bench-quix-results", value_serializer="json", key_serializer="str")
progress = Progress()


def parse(data: bytes) -> dict[str, object]:
    """The reading, counted."""
    progress.count += 1
    return orjson.loads(data)


frame = app.dataframe(readings).apply(parse)
frame = frame.apply(lambda reading: reading["temperature"])
frame = frame.tumbling_window(timedelta(seconds=10)).mean().final()
frame = frame.to_topic(results)

if __name__ == "__main__":
    app.run()

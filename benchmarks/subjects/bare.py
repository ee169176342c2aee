"""Bare aiokafka: `getmany`, and orjson or msgspec on every record.   BOOTSTRAP TOPIC FOLDER DECODER"""

from __future__ import annotations

import sys

import aiokafka
import uvloop

from benchmarks.subjects.decoders import DECODERS
from benchmarks.subjects.progress import Progress


async def main(bootstrap: str, topic: str, _folder: str, decoder: str) -> None:
    """Until it is stopped."""
    progress, decode = Progress(), DECODERS[decoder]
    consumer = aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", max_partition_fetch_bytes=2_000_000
    )
    await consumer.start()
    while True:
        for records in (await consumer.getmany(timeout_ms=500, max_records=5_000)).values():
            for record in records:
                decode(record.value)
            progress.count += len(records)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))

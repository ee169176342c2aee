"""A real Apache Kafka for a measurement, on a core of its own, and what is written into it and read back."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.cores import BROKER, pin
from benchmarks.platform import free_ports
from tpstream.embedded.apache import Apache, serves
from tpstream.embedded.child import die_with_parent

READY_SECONDS = 60.0


class Broker:
    """`with Broker() as broker:` starts one in a folder of its own; leaving kills it and removes the folder.

    Raises ConfigurationError where jars or Java are missing, RuntimeError where it does not serve.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tpstream-bench-"))
        self.port = free_ports(1)[0]
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Broker:
        apache = Apache(self.folder / "kafka", "127.0.0.1", self.port)
        apache.check()
        with (self.folder / "kafka.log").open("wb") as log:
            self.process = subprocess.Popen(
                apache.command(), stdout=log, stderr=log, preexec_fn=pin(BROKER, die_with_parent(os.getpid()))
            )
        try:
            asyncio.run(self._wait())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await serves(self.bootstrap):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Apache Kafka does not serve; its log is {self.folder / 'kafka.log'}")
            await asyncio.sleep(0.2)

    def make(self, topic: str, partitions: int, **configs: str) -> None:
        """Make a topic that keeps its records."""
        asyncio.run(self._make(topic, partitions, {"retention.ms": "-1", **configs}))

    async def _make(self, topic: str, partitions: int, configs: Mapping[str, str]) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            answer = await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=dict(configs))])
            for name, code, *message in answer.topic_errors:
                if code not in (0, 36):
                    raise RuntimeError(f"topic {name} was not made: {message}")
            while not await serves(self.bootstrap):
                await asyncio.sleep(0.1)
        finally:
            await admin.close()

    def records(self, topic: str, partitions: int) -> Iterator[Any]:
        """All records that a topic has now; none where it does not exist."""
        return iter(asyncio.run(self._records(topic, partitions)))

    async def _records(self, topic: str, partitions: int) -> list[Any]:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap,
            enable_auto_commit=False,
            isolation_level="read_committed",
            # Not seek_to_beginning: a reset to the end that is under way when it is called may win (seen).
            auto_offset_reset="earliest",
        )
        await consumer.start()
        found: list[Any] = []
        try:
            if topic not in await consumer.topics():
                return found
            places = [aiokafka.TopicPartition(topic, n) for n in range(partitions)]
            consumer.assign(places)
            ends = await consumer.end_offsets(places)
            while any([await consumer.position(place) < ends[place] for place in places]):
                for records in (await consumer.getmany(timeout_ms=500, max_records=50_000)).values():
                    found.extend(records)
        finally:
            await consumer.stop()
        return found

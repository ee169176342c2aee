"""The embedded broker's lives under `tpstream up`: what a person configured survives them, and memory is bounded."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable

import aiokafka
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from parts.supervised import Up, state

from tpstream.bus import topics
from tpstream.bus.provision import connect, read_life
from tpstream.bus.reader import read_to_end
from tpstream.messages import Device, Document

pytestmark = pytest.mark.kafka

RULE = Document("hot", "1", "rule: hot", "rules/hot.yaml")


def bootstrap(one: Up) -> str:
    return f"127.0.0.1:{one.environ['TPSTREAM_KAFKA_PORT']}"


async def produce(one: Up, topic: str, *records: tuple[bytes, bytes | None]) -> None:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap(one), acks="all", max_request_size=20_000_000)
    await producer.start()
    try:
        for key, value in records:
            await producer.send_and_wait(topic, value, key=key, partition=0, headers=[("h", b"\x00")])
    finally:
        await producer.stop()


async def read(one: Up, topic: str) -> list[tuple[bytes, bytes]]:
    place = aiokafka.TopicPartition(topic, 0)
    return [(r.key, r.value) async for _, some in read_to_end(bootstrap(one), {place: 0}) for r in some]


async def configure(one: Up) -> None:
    rules, devices = topics.config_rules, topics.config_devices
    await produce(one, rules.name, (b"hot@0", b"{}"), (b"hot@1", b"old"), (b"hot@1", rules.encode(RULE)))
    await produce(one, devices.name, (b"d1", devices.encode(Device("d1"))), (b"gone", b"{}"), (b"gone", None))


async def configured(one: Up) -> bool:
    rules = dict(await read(one, topics.config_rules.name))
    devices = dict(await read(one, topics.config_devices.name))
    return rules == {b"hot@0": b"{}", b"hot@1": topics.config_rules.encode(RULE)} and list(devices) == [b"d1"]


async def life(one: Up) -> str | None:
    record = await read_life(bootstrap(one))
    return record.id if record else None


async def shapes(one: Up) -> dict[str, int]:
    admin = await connect(bootstrap(one), 5)
    try:
        return {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics()}
    finally:
        await admin.close()


async def test_what_was_configured_is_there_after_a_restart(up: Callable[..., Up]) -> None:
    one = up()
    one.until_ready()
    before = await life(one)
    await configure(one)
    one.interrupt()
    assert one.end() == 0
    two = up()
    two.until_ready()
    assert await configured(two)
    assert "3 records put back" in two.said
    assert await life(two) != before
    two.interrupt()
    assert two.end() == 0


async def test_a_broker_that_dies_begins_a_new_life_and_the_bridge_runs_on(up: Callable[..., Up]) -> None:
    one = up(partitions=8)  # not the broker's own number
    one.until_ready()
    before, pids = await life(one), one.pids()
    await configure(one)
    await asyncio.sleep(1.5)  # the keeper's delay
    os.kill(pids["kafka"], signal.SIGKILL)
    one.until(lambda: one.said.count("worker-store  ready") == 2)
    one.until(lambda: one.said.count("worker        ready") == 2)
    assert await life(one) not in (before, None)
    assert await configured(one)
    there = await shapes(one)
    assert all(there[t.name] == (8 if t.by_device else 1) for t in topics.all_topics())
    now = one.pids()
    assert now["bridge"] == pids["bridge"]
    assert now["worker"] != pids["worker"]
    assert state(now["bridge"]) != "T"  # paused while topics were made, and released
    one.interrupt()
    assert one.end() == 0


async def test_at_its_bound_of_memory_a_new_life_begins_in_good_order(up: Callable[..., Up]) -> None:
    one = up("worker=--lag 5", "worker-store=--lag 5", kafka_memory_mb=150)
    one.until_ready()
    before = await life(one)
    await configure(one)
    block = os.urandom(1_000_000)
    await produce(one, topics.uplink_raw.name, *((b"d1", block) for _ in range(150)))
    one.until(lambda: "began a new life" in one.said, 30)
    assert re.search(r"kafka +had grown to 1\d\d MB: began a new life in \d\.\d s, nothing lost", one.said)
    happened = [(name, what) for name, what, _ in one.events()]
    order = happened[happened.index(("bridge", "hold")) :]
    assert {("bridge", "release"), ("worker", "release")} == set(order[-2:])
    assert order.index(("worker", "hold")) < order.index(("worker", "stopped"))
    assert {("worker", "stopped"), ("worker-store", "stopped")} < set(order)
    assert await life(one) not in (before, None)
    assert await configured(one)
    assert "died" not in one.said
    one.interrupt()
    assert one.end() == 0


async def test_what_was_not_worked_off_at_the_stop_is_said(up: Callable[..., Up]) -> None:
    one = up("worker-store=--lag 1000000", stop_seconds=4)
    one.until_ready()
    one.interrupt()
    assert one.end() == 0
    assert "worker-store  has not worked off everything; the embedded broker forgets the rest" in one.said


async def test_a_device_that_publishes_meanwhile_loses_nothing_to_topics_of_the_brokers_own_making(
    up: Callable[..., Up],
) -> None:
    one = up("bridge=real", partitions=8)
    one.until_ready()
    device = paho.Client(CallbackAPIVersion.VERSION2, client_id="d1")
    acknowledged: list[int] = []
    device.on_publish = lambda client, userdata, mid, *_: acknowledged.append(mid)
    device.connect("127.0.0.1", int(one.environ["TPSTREAM_MQTT_PORT"]))
    device.loop_start()

    def publish(count: int) -> None:
        for n in range(count):
            device.publish(f"devices/d{n}/telemetry", b'{"t":1}', qos=1)

    publish(10)
    one.until(lambda: len(acknowledged) == 10)
    for times in (2, 3):
        os.kill(one.pids()["kafka"], signal.SIGKILL)
        publish(100)
        one.until(lambda times=times: one.said.count("worker        ready") == times)
        one.until(lambda times=times: len(acknowledged) == 10 + 100 * (times - 1))
        there = await shapes(one)
        assert there[topics.uplink_raw.name] == 8
    device.loop_stop()
    # What was acknowledged after the last death is in the raw topic, in all its partitions.
    places = {aiokafka.TopicPartition(topics.uplink_raw.name, n): 0 for n in range(8)}
    stored = [r.key async for _, some in read_to_end(bootstrap(one), places) for r in some if r.value == b'{"t":1}']
    assert len(stored) >= 100
    one.interrupt()
    assert one.end() == 0

"""What `broker/reading.py` uses of paho's inside is still there, and still does what it did."""

from __future__ import annotations

import asyncio
import socket

import paho.mqtt.client as paho
import pytest
from parts import mqtt_wire as wire

from connectors.mqtt_bridge.broker.client import address
from connectors.mqtt_bridge.broker.reading import Reading
from connectors.mqtt_bridge.broker.way import UPLINK_FILTERS
from connectors.mqtt_bridge.endpoint.subscriptions import matches
from connectors.mqtt_bridge.publish import Publish
from tpstream.errors import ConfigurationError
from tpstream.uplink.dialects import downlink_filters


def client() -> paho.Client:
    return paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="c", protocol=paho.MQTTv5)


def test_the_names() -> None:
    made = client()
    for name in ("_packet_handle", "_packet_queue", "_loop_rc_handle", "_in_packet", "_last_bytes_received"):
        assert hasattr(made, name), name
    assert {"command", "have_remaining", "remaining_length", "packet"} <= set(made._in_packet)


async def test_publishes_are_taken_and_the_rest_is_left_to_paho() -> None:
    """Over a real pair of sockets, in pieces."""
    ours, brokers = socket.socketpair()
    ours.setblocking(False)
    made = client()
    made._sock = ours
    confirmed: list[int] = []
    made.on_subscribe = lambda _, __, mid, *___: confirmed.append(mid)
    taken: list[Publish] = []
    failed: list[Exception] = []
    reading = Reading(made, asyncio.get_running_loop(), taken.extend, failed.append)
    reading.start()
    suback = wire.packet(0x90, b"\0\x05\0\x01")
    data = wire.publish("a", b"1", packet_id=1) + suback + wire.publish("b", b"2" * 300, packet_id=2, dup=True)
    for n in range(0, len(data), 7):
        brokers.send(data[n : n + 7])
        await asyncio.sleep(0.001)
    async with asyncio.timeout(2):
        while len(taken) < 2:
            await asyncio.sleep(0.005)
    assert [(one.topic, one.payload, one.packet_id, one.dup) for one in taken] == [
        ("a", b"1", 1, False),
        ("b", b"2" * 300, 2, True),
    ]
    assert confirmed == [5]
    reading.acknowledge(taken)
    made.loop_write()
    assert [one.packet_id for one in wire.split(brokers.recv(100))[0]] == [1, 2]
    reading.pause()
    brokers.send(wire.publish("c", packet_id=3))
    await asyncio.sleep(0.02)
    assert len(taken) == 2
    reading.resume()
    await asyncio.sleep(0.02)
    assert len(taken) == 3
    assert failed == []
    reading.end()
    brokers.close()
    ours.close()


def test_we_never_hear_our_own_downlinks() -> None:
    topics = [one.replace("+", "m1") for one in downlink_filters("d1")]
    assert [(a, b) for a in UPLINK_FILTERS for b in topics if matches(a, b)] == []


def test_address() -> None:
    assert address("mqtt://host") == {"hostname": "host", "port": 1883}
    assert address("mqtt://u:p%40@host:99") == {"hostname": "host", "port": 99, "username": "u", "password": "p@"}


@pytest.mark.parametrize("url", ["host:1883", "http://host", "mqtt://", "mqtt://h:x"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigurationError):
        address(url)

"""What the simulated devices say and understand: bytes in, bytes out; nothing is sent here."""

from __future__ import annotations

import struct
from typing import Any, Protocol

import msgspec

from tpstream.errors import TpstreamError
from tpstream.simulator.greenhouse import Reading

SIX_BYTES = struct.Struct(">hHH")
"""Temperature and humidity in hundredths (°C, percent), battery in mV; big-endian."""


class Order(msgspec.Struct):
    """`fan` on or off."""

    on: bool


class _Command(msgspec.Struct):
    method: str
    params: Any = None


class Sensor(Protocol):
    """How a kind of device speaks."""

    backlog: int
    """Readings kept while there is no connection; the oldest go first."""

    def say(self, reading: Reading, now: int) -> bytes:
        """The telemetry payload of a reading. `now`: ms since 1970."""

    def understand(self, payload: bytes) -> Order:
        """The order in a command's payload. Raises TpstreamError that says what is wrong with it."""


class JsonSensor:
    """Speaks JSON with its own time, so what it kept during an outage comes later with its true time."""

    backlog = 3600

    def say(self, reading: Reading, now: int) -> bytes:
        """`{"ts":…,"values":{"temperature":…,"humidity":…,"fan":…}}`."""
        values = {"temperature": reading.temperature, "humidity": reading.humidity, "fan": reading.fan}
        return msgspec.json.encode({"ts": now, "values": values})

    def understand(self, payload: bytes) -> Order:
        """`{"method":"fan","params":{"on":true}}`."""
        try:
            command = msgspec.json.decode(payload, type=_Command)
        except msgspec.DecodeError as error:
            raise TpstreamError(f"not a command: {error}") from None
        if command.method != "fan":
            raise TpstreamError(f"method {command.method!r} is unknown here; there is fan")
        try:
            return msgspec.convert(command.params, Order)
        except msgspec.ValidationError as error:
            raise TpstreamError(f"params of fan: {error}") from None


class BinarySensor:
    """Six bytes up, two bytes down; it has no clock, so it keeps nothing while it is cut off."""

    backlog = 1

    def say(self, reading: Reading, now: int) -> bytes:
        """int16 temperature × 100, uint16 humidity × 100, uint16 battery in mV."""
        temperature = max(-32768, min(32767, round(reading.temperature * 100)))
        return SIX_BYTES.pack(temperature, round(reading.humidity * 100), round(reading.battery * 1000))

    def understand(self, payload: bytes) -> Order:
        """0x01 (fan), then 0x00 or 0x01."""
        if len(payload) != 2 or payload[0] != 1 or payload[1] > 1:
            raise TpstreamError(f"not a command: {payload[:8].hex(' ') or 'nothing'}; it is 01 00 or 01 01")
        return Order(bool(payload[1]))


def answer(now: int, error: TpstreamError | None = None) -> bytes:
    """The response to a command (docs/protocol.md). `now`: ms since 1970; the answer carries seconds."""
    if error is None:
        return msgspec.json.encode({"result": 0, "message": "success", "ts": now // 1000, "method": "fan"})
    return msgspec.json.encode({"result": 1, "errcode": "params", "message": str(error), "ts": now // 1000})

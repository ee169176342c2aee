"""aiokafka on uvloop: a connection that the broker has reset is a lost connection.

aiokafka takes an OSError for that; uvloop raises a RuntimeError where one writes to a closed
transport. It ends aiokafka's fetching, its sending or its heartbeats for good, while the rest goes
on: a worker then stays a member of its group and does nothing (seen; aiokafka's issue 1038, open).
The connection's class is named nowhere that a subclass could take its place, so one method is
replaced, as long as aiokafka does not catch it itself.
"""

from __future__ import annotations

import functools
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_send = AIOKafkaConnection.send


@functools.wraps(_send)
def _send_or_say_so(self: AIOKafkaConnection, request: Any, expect_response: bool = True) -> Any:
    try:
        return _send(self, request, expect_response)
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def mend() -> None:
    """Have every connection of this process to Kafka survive a reset on uvloop. May be repeated."""
    AIOKafkaConnection.send = _send_or_say_so

"""Sending a command: a JSON body becomes a record on `tp.downlink.command.v1`."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any, Protocol

import orjson

from tpstream.bus import topics
from tpstream.bus.envelope import Headers
from tpstream.errors import Rejected, Unavailable
from tpstream.messages import CommandRequest
from tpstream.web.parameters import checked, device_number
from tpstream.web.reply import BadRequest, Call, Reply, error_reply, json_reply

MAX_METHOD = 256
MAX_TIMEOUT = 86_400.0
"""Seconds; a day."""
MAX_ATTEMPTS = 100
KAFKA_SECONDS = 10.0
"""How long a caller waits for Kafka's acknowledgement before it hears 503."""

_FIELDS = ("method", "params", "timeout", "attempts")


class Sends(Protocol):
    """What is needed of `tpstream.bus.producer.Producer`."""

    @property
    def available(self) -> bool: ...

    def add(
        self, topic: str, partition: int | None, key: bytes, value: bytes | None, headers: Headers, timestamp: int
    ) -> int: ...

    async def flush(self) -> None: ...


def parse(device: str, body: bytes, now: int, id: str) -> CommandRequest:
    """The command that a body asks for. BadRequest names the field that is wrong."""
    device_number(device)
    try:
        content: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("body", f"is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest("body", 'must be an object: {"method": "…", "params": {…}}')
    for name in content:
        if name not in _FIELDS:
            raise BadRequest(name[:40], f"is not a field of a command; there are: {', '.join(_FIELDS)}")
    method = content.get("method")
    if not isinstance(method, str) or not method:
        raise BadRequest("method", "must be a non-empty text")
    checked(method, "method", MAX_METHOD)
    attempts = content.get("attempts")
    if attempts is not None and (type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS):
        raise BadRequest("attempts", f"must be a whole number from 1 to {MAX_ATTEMPTS}")
    return CommandRequest(
        id=id,
        device=device,
        method=method,
        created_at=now,
        params=_params(content.get("params")),
        source="api",
        timeout=_timeout(content.get("timeout")),
        attempts=attempts,
    )


def _params(params: Any) -> str:
    if params is None:
        return ""
    if not isinstance(params, dict):
        raise BadRequest("params", "must be an object")
    try:
        return orjson.dumps(params).decode()
    except orjson.JSONEncodeError:
        raise BadRequest("params", "is nested too deeply") from None


def _timeout(timeout: Any) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise BadRequest("timeout", f"must be a number of seconds above 0, up to {MAX_TIMEOUT:.0f}")
    return float(timeout)


class Commands:
    """POST /api/v1/devices/{device}/commands: 202 once Kafka has the command.

    `tpstream up` has them held before it stops, or gives its embedded broker a new life: what is
    taken after the workers have worked off everything would go with the broker's memory.
    """

    def __init__(
        self,
        producer: Sends,
        *,
        clock: Callable[[], int] = lambda: int(time.time() * 1000),
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        patience: float = KAFKA_SECONDS,
    ) -> None:
        self._producer = producer
        self._clock = clock
        self._new_id = new_id
        self._patience = patience
        self._held = False

    async def hold(self, call: Call) -> Reply:
        """Take no more commands; answered when Kafka has those that were taken. Unavailable: not in time."""
        if not call.near:
            return _not_from_there()
        self._held = True
        try:
            await asyncio.wait_for(self._producer.flush(), self._patience)
        except TimeoutError:
            raise Unavailable(f"Kafka has not acknowledged within {self._patience:g} s what was taken") from None
        return json_reply({"held": True})

    async def release(self, call: Call) -> Reply:
        """Take commands again."""
        if not call.near:
            return _not_from_there()
        self._held = False
        return json_reply({"held": False})

    async def post(self, call: Call) -> Reply:
        """Take a command. Unavailable: Kafka has not acknowledged it in time."""
        if self._held:
            return error_reply(
                503, "no commands are taken for a moment: tpstream stops, or its broker starts anew", remedy="try again"
            )
        request = parse(call.path["device"], call.body, self._clock(), self._new_id())
        if not self._producer.available:
            # Added now it would wait in memory, and be sent after the caller has heard that it was not.
            raise Unavailable("Kafka does not answer at the moment; the command was not taken")
        topic = topics.downlink_command
        try:
            self._producer.add(topic.name, None, request.device.encode(), topic.encode(request), (), request.created_at)
        except Rejected as error:
            raise BadRequest("params", str(error)) from None
        try:
            await asyncio.wait_for(self._producer.flush(), self._patience)
        except TimeoutError:
            raise Unavailable(
                f"Kafka has not acknowledged command {request.id} within {self._patience:g} s; "
                f"it may still be sent: look at /api/v1/commands/{request.id} before you repeat it"
            ) from None
        location = f"/api/v1/commands/{request.id}"
        return json_reply({"id": request.id, "state": "QUEUED"}, 202, headers=(("Location", location),))


def _not_from_there() -> Reply:
    return error_reply(403, "only a process of this machine may hold and release commands")

"""The life of a device's commands, as a pure function (docs/downlink.md).

QUEUED → ENCODED → SENT → DELIVERED → SUCCEEDED | REFUSED | TIMED_OUT | EXPIRED | FAILED

- One command of a device is in flight, the others wait in order.
- It is sent at most `limit` times, always with the same id; a device known to be offline is
  waited for, one of which nothing is known is tried.
- EXPIRED says that it was never sent. One that was, and got no answer, is TIMED_OUT: its fate is unknown.
- What the device has confirmed to have (DELIVERED) is not sent again.
- The first end stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tpstream.downlink import state as bounds
from tpstream.downlink.state import Command, DeviceCommands, Ended
from tpstream.messages import CommandRequest, CommandState, CommandStatus, Response


class Requested(NamedTuple):
    """Somebody wants a command sent; `payload` is encoded, or `failure` says why it cannot be."""

    request: CommandRequest
    payload: bytes
    failure: str
    timeout: int
    limit: int
    expires_at: int


class Connection(NamedTuple):
    """The device came or went, at `ts` (ms)."""

    online: bool
    ts: int


class Passed(NamedTuple):
    """Time has passed."""


Event = Requested | Response | Connection | Passed


class Publish(NamedTuple):
    """Send this to the device now."""

    id: str
    payload: bytes


class Unknown(NamedTuple):
    """A device answered what it was not asked, or what is long forgotten."""

    response: Response


Effect = CommandStatus | Publish | Unknown


class Planned(NamedTuple):
    """The device's next state, and what is to be done, in order."""

    state: DeviceCommands
    effects: Sequence[Effect]


def plan(state: DeviceCommands | None, event: Event, clock: int) -> Planned:
    """What an event makes of a device's commands, at the partition's clock (ms)."""
    step = _Step(state or DeviceCommands(), clock)
    match event:
        case Requested():
            step.request(event)
        case Response():
            step.answer(event)
        case Connection():
            step.connection(event)
        case Passed():
            pass
    step.advance()
    return Planned(step.state(), step.effects)


class _Step:
    """One call of `plan`: copies of what changes, and the effects so far."""

    def __init__(self, state: DeviceCommands, clock: int) -> None:
        self.before = state
        self.clock = clock
        self.queue = list(state.queue)
        self.ended = state.ended
        self.online, self.status_at = state.online, state.status_at
        self.effects: list[Effect] = []

    def state(self) -> DeviceCommands:
        due = [c.expires_at if c.deadline is None else c.deadline for c in self.queue]
        return DeviceCommands(
            tuple(self.queue), self.ended, self.online, self.status_at, min(due, default=None), self.before.clock
        )

    # Events

    def request(self, event: Requested) -> None:
        request = event.request
        if self.before.knows(request.id):
            return
        status = CommandStatus(
            id=request.id,
            device=request.device,
            method=request.method,
            state=CommandState.QUEUED,
            created_at=request.created_at,
            updated_at=self.clock,
            version=1,
            params=request.params,
            source=request.source,
        )
        size = len(event.payload) + len(request.params)
        size += sum(len(c.payload) + len(c.status.params) for c in self.queue)
        if len(self.queue) >= bounds.MAX_QUEUED or size > bounds.MAX_QUEUED_BYTES:
            reason = f"the device's queue is full ({len(self.queue)} commands)"
            self._bury(_told(status, self.clock, 0, CommandState.FAILED, _reason(reason)))
            return
        self.effects.append(status)
        if event.failure:
            self._bury(_told(status, self.clock, 1, CommandState.FAILED, _reason(event.failure)))
            return
        status = _told(status, self.clock, 1, CommandState.ENCODED)
        self.effects.append(status)
        self.queue.append(Command(status, event.payload, event.timeout, event.limit, event.expires_at))

    def answer(self, response: Response) -> None:
        place = next((n for n, c in enumerate(self.queue) if c.status.id == response.message_id), None)
        if response.what == "response":
            if place is None:
                self._late_answer(response)
            else:
                end = CommandState.SUCCEEDED if response.result == 0 else CommandState.REFUSED
                self._end(place, end, response.text)
        elif place is not None:
            reached = CommandState.DELIVERED if response.what == "receipt" else CommandState.SENT
            known = self.queue[place].status.state
            if known is not reached and known is not CommandState.DELIVERED:
                self._tell(place, reached)

    def connection(self, event: Connection) -> None:
        if event.ts < self.status_at:
            return
        self.online, self.status_at = event.online, event.ts
        if event.online and self.queue:
            head = self.queue[0]
            lost = head.deadline is not None and head.sent_at < event.ts and head.status.attempts < head.limit
            if lost and head.status.state is not CommandState.DELIVERED and self.clock < head.expires_at:
                self.queue[0] = msgspec.structs.replace(head, deadline=None)

    # What follows from the clock

    def advance(self) -> None:
        """End what is over, and send the first that may be sent."""
        for n in range(len(self.queue) - 1, 0, -1):
            if self.clock >= self.queue[n].expires_at:
                self._end(n, CommandState.EXPIRED, _reason("it expired before it was sent"))
        while self.queue:
            head = self.queue[0]
            if head.deadline is not None:
                if self.clock < head.deadline:
                    return
                again = head.status.attempts < head.limit and self.clock < head.expires_at
                if not again or head.status.state is CommandState.DELIVERED:
                    self._end(0, CommandState.TIMED_OUT, _reason("no answer in time"))
                    continue
                head = self.queue[0] = msgspec.structs.replace(head, deadline=None)
            if self.clock >= head.expires_at:
                if head.status.attempts:
                    self._end(0, CommandState.TIMED_OUT, _reason("no answer before it expired"))
                else:
                    self._end(0, CommandState.EXPIRED, _reason("it expired before it was sent"))
                continue
            if self.online is not False:
                self._send(head)
            return

    # Steps

    def _send(self, head: Command) -> None:
        status = msgspec.structs.replace(
            head.status,
            attempts=head.status.attempts + 1,
            version=head.status.version + 1,
            updated_at=self.clock,
        )
        sent_at = max(self.clock, self.status_at)
        self.queue[0] = msgspec.structs.replace(
            head, status=status, sent_at=sent_at, deadline=self.clock + head.timeout
        )
        self.effects += [status, Publish(status.id, head.payload)]

    def _tell(self, place: int, state: CommandState) -> None:
        command = self.queue[place]
        status = _told(command.status, self.clock, 1, state)
        self.queue[place] = msgspec.structs.replace(command, status=status)
        self.effects.append(status)

    def _end(self, place: int, state: CommandState, result: str) -> None:
        command = self.queue.pop(place)
        self._bury(_told(command.status, self.clock, 1, state, result))

    def _bury(self, status: CommandStatus) -> None:
        """Tell the end, and remember it: a while whole, longer its id."""
        self.effects.append(status)
        oldest = self.clock - bounds.REMEMBERED_MS
        kept = [(id, ended) for id, ended in self.ended.items() if ended.at > oldest][-bounds.MAX_REMEMBERED + 1 :]
        whole = len(kept) - bounds.MAX_KEPT + 1
        self.ended = {id: Ended(ended.at) if n < whole else ended for n, (id, ended) in enumerate(kept)}
        small = len(status.params) + len(status.result) <= bounds.MAX_KEPT_CHARS
        self.ended[status.id] = Ended(self.clock, status if small else None)

    def _late_answer(self, response: Response) -> None:
        """An answer to what has ended: kept beside the first end, which stays."""
        ended = self.ended.get(response.message_id)
        if ended is None:
            self.effects.append(Unknown(response))
            return
        told = ended.status
        if told is None or len(ended.later) >= bounds.MAX_LATER or len(response.text) > bounds.MAX_KEPT_CHARS:
            return
        if response.text == told.result or response.text in ended.later:
            return
        later = (*ended.later, response.text)
        told = _told(told, self.clock, 1, told.state)
        self.ended = {**self.ended, told.id: Ended(ended.at, told, later)}
        both = {"first": _parsed(told.result), "later": [_parsed(text) for text in later]}
        self.effects.append(msgspec.structs.replace(told, result=msgspec.json.encode(both).decode()))


def _told(
    status: CommandStatus, clock: int, versions: int, state: CommandState, result: str | None = None
) -> CommandStatus:
    return msgspec.structs.replace(
        status,
        state=state,
        version=status.version + versions,
        updated_at=clock,
        result=status.result if result is None else result,
    )


def _reason(text: str) -> str:
    return msgspec.json.encode({"reason": text}).decode()


def _parsed(text: str) -> object:
    try:
        return msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError):
        return text

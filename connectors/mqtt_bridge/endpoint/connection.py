"""The shell around a session: one device's socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from connectors.mqtt_bridge.downlink import Downlink, Receipt
from connectors.mqtt_bridge.endpoint.effects import Arrived, Closed, Deafened, Dropped, Effect, Listens
from connectors.mqtt_bridge.endpoint.reasons import Reason
from connectors.mqtt_bridge.endpoint.session import Held, Session
from connectors.mqtt_bridge.publish import Publish

if TYPE_CHECKING:
    from connectors.mqtt_bridge.endpoint.endpoint import Endpoint

LINGER_SECONDS = 1.0
"""Seconds to go on reading after our last byte: a reset would destroy what is still on its way to the device."""


class Connection(asyncio.Protocol):
    """Hands bytes to a session and does what it says."""

    transport: asyncio.Transport
    session: Session

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = endpoint.loop
        self._reading = True
        self._choked = False
        self._lingering = False
        self.lost = asyncio.Event()
        self.opening: asyncio.Task[None] | None = None

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.session = self._endpoint.begin(self)
        self._settle()

    def data_received(self, data: bytes) -> None:
        if not self._lingering:
            effects = self.session.receive(data, self._loop.time())
            if effects:
                self.do(effects)
            else:
                self._settle()

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        self._endpoint.gone(self, "connection lost" if error else "end of stream")

    def pause_writing(self) -> None:
        """The device does not take our answers: take nothing from it either."""
        self._choked = True
        self._settle_reading()

    def resume_writing(self) -> None:
        self._choked = False
        self._settle_reading()

    # Called by the endpoint

    def do(self, effects: list[Effect]) -> None:
        """Do what the session wants done, then write what it wants written."""
        intake, closed = self._endpoint.intake, None
        for effect in effects:
            if type(effect) is Publish:
                intake.publish(effect)
            elif type(effect) is Receipt:
                intake.receipt(self.session, effect)
            elif type(effect) is Listens:
                self._endpoint.listens(self, effect.device)
            elif type(effect) is Deafened:
                self._endpoint.deafened(self, effect.device)
            elif type(effect) is Arrived:
                self.opening = self._loop.create_task(self._endpoint.open(self, effect.connect))
            elif type(effect) is Dropped:
                self._endpoint.counts.dropped_qos0 += 1
            elif type(effect) is Closed:
                closed = effect
        self._settle()
        if closed is not None:
            self._endpoint.ended(self, closed.reason)
            self._close()

    def landed(self) -> None:
        """The session has acknowledgements to write, and may have room for more."""
        if self.session.held is Held.RECEIVE_MAXIMUM:
            self.proceed()
        else:
            self._settle()

    def proceed(self) -> None:
        """Go on with what was held."""
        self.do(self.session.proceed(self._loop.time()))

    def deliver(self, downlink: Downlink) -> None:
        """Send a downlink, or queue it."""
        self.do(self.session.deliver(downlink))

    def freeze(self, frozen: bool) -> None:
        """Stop, or go on, taking from this device."""
        self.session.freeze(frozen)
        if frozen:
            self._settle()
        else:
            self.proceed()

    def end(self, text: str, reason: Reason | None) -> None:
        """Close from our side."""
        self.do(self.session.end(text, reason))

    def _settle(self) -> None:
        session = self.session
        if session.out:
            if not self.lost.is_set():
                self.transport.write(bytes(session.out))
            session.out.clear()
        if (session.held is None) != self._reading or self._choked:
            self._settle_reading()

    def _settle_reading(self) -> None:
        """Read from the socket, or do not, as the session and the writing side allow."""
        reading = self._lingering or (self.session.held is None and not self._choked)
        if self.session.held is Held.BUDGET:
            self._endpoint.budget.wait(self.proceed)
        if reading is self._reading or self.lost.is_set():
            return
        self._reading = reading
        if reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _close(self) -> None:
        """Half-close and read on for a moment, so that our last packets arrive."""
        if self._lingering or self.lost.is_set():
            return
        self._lingering = True
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError):  # the device was faster
            self.transport.close()
            return
        self._settle_reading()
        self._loop.call_later(LINGER_SECONDS, self.transport.abort)

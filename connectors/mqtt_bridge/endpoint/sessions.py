"""Where sessions are kept between connections.

Here they are clean ones: nothing is kept. A store that keeps them (subscriptions, packet ids
in flight) writes each change before the packet that depends on it leaves; that is why its
methods wait, and why the endpoint answers CONNECT only when `take` has returned.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Client(NamedTuple):
    """Who owns a session. A client id counts within its login, so that nobody takes over another's session."""

    login: str | None
    client_id: str


@dataclass(slots=True)
class Kept:
    """What a session is made of."""

    number: int
    """Random, 64 bits; new for each session."""
    present: bool = False
    """It was there before this connection."""
    filters: dict[str, int] = field(default_factory=dict)
    """Subscribed filters and their QoS."""


class SessionStore(Protocol):
    """Keeps sessions."""

    async def take(self, client: Client, clean: bool) -> Kept:
        """The session that this connection owns from now on; a new one if `clean` or none is kept."""
        ...

    async def release(self, client: Client, kept: Kept, expiry: int) -> None:
        """The connection has ended; keep the session for `expiry` seconds."""
        ...


class CleanSessions:
    """Every connection begins a session and ends it."""

    async def take(self, client: Client, clean: bool) -> Kept:
        """A new session."""
        return Kept(secrets.randbits(64))

    async def release(self, client: Client, kept: Kept, expiry: int) -> None:
        """Nothing is kept."""

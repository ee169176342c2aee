"""What is remembered of a device's commands: the value of the table `commands`, key: device.

Replaced, never changed in place: an undone batch puts the old value back.
"""

from __future__ import annotations

import msgspec

from tpstream.messages import CommandStatus

MAX_QUEUED = 100
"""Commands of one device that are not ended; what comes beyond ends FAILED at once."""

MAX_QUEUED_BYTES = 1_000_000
"""Bytes of payload and parameters of these."""

MAX_REMEMBERED = 1_000
"""Ended commands of one device whose ids are remembered."""

REMEMBERED_MS = 7 * 86_400_000
"""How long they are remembered: a week."""

MAX_KEPT = 20
"""Ended commands of one device that are kept whole, so that a late answer can be put beside their end."""

MAX_KEPT_CHARS = 10_000
"""Characters of parameters and result up to which an ended command is kept whole."""

MAX_LATER = 5
"""Later answers that are kept beside an end."""


class Command(msgspec.Struct, frozen=True, array_like=True):
    """A command that has not ended."""

    status: CommandStatus
    """As it was last told."""
    payload: bytes
    timeout: int
    """How long an answer is waited for after each send, ms."""
    limit: int
    """Times it may be sent."""
    expires_at: int
    sent_at: int = 0
    """The partition's clock when it was last sent, ms."""
    deadline: int | None = None
    """The clock at which waiting for an answer ends; None: it waits to be sent."""


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """What is left of a command that has ended."""

    at: int
    status: CommandStatus | None = None
    """Its end as it was first told, with the version last told, while it is kept whole."""
    later: tuple[str, ...] = ()
    """Answers that came after the end."""


class DeviceCommands(msgspec.Struct, frozen=True, array_like=True):
    """A device's commands: the first is in flight or next, the others wait behind it."""

    queue: tuple[Command, ...] = ()
    ended: dict[str, Ended] = {}
    """By id, in the order in which they ended."""
    online: bool | None = None
    """None: nothing was ever heard of its connection."""
    status_at: int = 0
    """When its connection last changed, ms."""
    due: int | None = None
    """The partition's clock at which something is to be done without being asked."""
    clock: int = 0
    """Only in the partition's own entry: the highest record timestamp seen."""

    def knows(self, id: str) -> bool:
        """Whether a command of that id is there or is remembered."""
        return id in self.ended or any(command.status.id == id for command in self.queue)

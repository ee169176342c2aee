"""What decode remembers of each device, and, under PARTITION, which release was in force from where on."""

from __future__ import annotations

import msgspec

from tpstream.bus.position import NO_LIFE, Life, Position
from tpstream.bus.table import Table

PARTITION = ""
"""The key of the partition's releases; no device has an empty number."""

KEPT_RELEASES = 16
"""Releases that records which are read again can still be decoded with."""


class InForce(msgspec.Struct, frozen=True, array_like=True):
    """A release, from a raw offset on."""

    offset: int
    release: str


class Status(msgspec.Struct, frozen=True, gc=False):
    """A device's connection and registration; or the partition's releases."""

    online: bool = False
    session: int = 0
    """The MQTT session that connected last: only its end makes the device offline."""
    announced: bytes = b""
    """The life in which the device was registered on first sight."""
    life: bytes = NO_LIFE
    """The life that the offsets of `releases` belong to."""
    releases: tuple[InForce, ...] = ()
    """The oldest first."""
    epoch: int = 0
    """Of the owner that announced the newest one; what an earlier owner still says does not count."""

    def release_at(self, position: Position) -> str | None:
        """The release in force for the record at this position; None: none was announced before it."""
        if not self.releases:
            return None
        if self.life != position.life:
            return self.releases[-1].release
        for one in reversed(self.releases):
            if one.offset <= position.offset:
                return one.release
        return None

    def superseded(self, position: Position, epoch: int) -> bool:
        """Whether an owner of this epoch, speaking at this position, had lost the partition by then."""
        return self.life == position.life and epoch < self.epoch

    def with_release(self, release: str, position: Position, epoch: int = 0) -> Status:
        """In force from this position on. Of another life only the newest is of use: as of the beginning."""
        kept = (
            self.releases if self.life == position.life else tuple(InForce(-1, r.release) for r in self.releases[-1:])
        )
        return msgspec.structs.replace(
            self,
            life=Life(position.life),
            releases=(*kept, InForce(position.offset, release))[-KEPT_RELEASES:],
            epoch=epoch,
        )


device_status_table = Table("status", Status)
"""Written by agents/decode."""

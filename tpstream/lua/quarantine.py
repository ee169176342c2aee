"""Which scripts may not run for a while (docs/scripts.md): pure, the clock is an argument."""

from __future__ import annotations

from dataclasses import dataclass, field

OFFENCES = 3
WITHIN_MS = 60_000
FIRST_MS = 60_000
LONGEST_MS = 3_600_000
_MAX_SCRIPTS = 10_000


@dataclass(slots=True)
class _Record:
    offences: list[int] = field(default_factory=list)
    until: int = 0
    times: int = 0


class Quarantine:
    """Three offences within a minute quarantine a script version, each time for twice as long."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def until(self, script: str, now: int) -> int | None:
        """Until when (ms) the script may not run; None where it may."""
        record = self._records.get(script)
        return record.until if record is not None and now < record.until else None

    def offence(self, script: str, now: int) -> int | None:
        """Count an offence (time or memory) at `now` (ms). Returns until when it is quarantined, if it is."""
        record = self._records.pop(script, None) or _Record()
        self._records[script] = record  # the newest last
        if len(self._records) > _MAX_SCRIPTS:
            del self._records[next(iter(self._records))]
        record.offences = [at for at in record.offences if now - at < WITHIN_MS] + [now]
        if len(record.offences) < OFFENCES:
            return self.until(script, now)
        record.offences.clear()
        record.until = now + min(FIRST_MS << record.times, LONGEST_MS)
        record.times = min(record.times + 1, 10)
        return record.until

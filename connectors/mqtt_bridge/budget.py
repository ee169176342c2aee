"""The bound over all connections: bytes read from devices that Kafka does not have yet."""

from __future__ import annotations

from collections.abc import Callable


class Budget:
    """Counts bytes; who finds it full waits here and is called when there is room again."""

    __slots__ = ("_waiting", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._waiting: dict[Callable[[], None], None] = {}

    @property
    def full(self) -> bool:
        """No more may be read. The last publish taken may overstep the limit by its own size."""
        return self.used >= self.limit

    def take(self, size: int) -> None:
        """Count bytes."""
        self.used += size

    def give_back(self, size: int) -> None:
        """Count bytes off, without waking anybody (see `wake`)."""
        self.used -= size

    def wait(self, wake: Callable[[], None]) -> None:
        """Have `wake` called, once, when there is room."""
        self._waiting[wake] = None

    def forget(self, wake: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.pop(wake, None)

    def wake(self) -> None:
        """Call those who wait, first come first served, for as long as there is room."""
        while self._waiting and not self.full:
            call = next(iter(self._waiting))
            del self._waiting[call]
            call()

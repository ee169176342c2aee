"""An agent: a handler of batches, and what it needs to run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from tpstream.bus.batch import Batch
from tpstream.bus.table import Table
from tpstream.bus.topics import Topic
from tpstream.settings import Settings

Handler = Callable[[Batch], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """A handler, the topics whose batches it gets, the tables it writes, and the role that runs it."""

    name: str
    handler: Handler
    topics: tuple[Topic[Any], ...]
    tables: tuple[Table[Any], ...]
    role: str


class Services(Protocol):
    """What a worker hands to its handlers as `batch.services`; the lane needs only the settings."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""
        ...

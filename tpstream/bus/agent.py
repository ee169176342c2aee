"""An agent: a handler of batches, and what it needs to run."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from tpstream.bus.batch import Batch
from tpstream.bus.table import Table
from tpstream.bus.topics import Topic
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

Handler = Callable[[Batch], Awaitable[None]]

ROLES = ("process", "store")

AT_ONCE = 2_000
"""Records handed to a handler at once: what is lost in work when one of them is poison."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A handler, the topics whose batches it gets, the tables it writes, and the role that runs it."""

    name: str
    handler: Handler
    topics: tuple[Topic[Any], ...]
    tables: tuple[Table[Any], ...]
    role: str
    at_once: int = AT_ONCE
    """The most records of a batch."""


class Services(Protocol):
    """What a worker hands to its handlers as `batch.services`; the lane needs only the settings."""

    @property
    def settings(self) -> Settings:
        """The worker's settings."""
        ...


def check_declaration(agent: Agent, handler: Callable[..., Any], others: Iterable[Agent]) -> None:
    """Refuse what could only fail later, record by record. Raises ConfigurationError, with the place in the source."""

    def refuse(why: str) -> None:
        raise ConfigurationError(f"agent {agent.name!r} ({_source(handler)}): {why}")

    if inspect.isasyncgenfunction(handler):
        refuse("it yields; an agent returns nothing and sends with `send`")
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(
        getattr(type(handler), "__call__", None)  # noqa: B004 - not whether it can be called, but how
    ):
        refuse("it is no coroutine function; write `async def`")
    try:
        inspect.signature(handler).bind(None)
    except TypeError as error:
        refuse(f"it is called with one argument, the batch or stream ({error})")
    if not agent.topics:
        refuse("it has no topic")
    for topic in agent.topics:
        if not isinstance(topic, Topic):
            refuse(f"{topic!r} is no topic; take one of `tpstream.topics`, or declare `app.topic(name, type)`")
    for name, count in Counter(topic.name for topic in agent.topics).items():
        if count > 1:
            refuse(f"topic {name} is named {count} times")
    if agent.role not in ROLES:
        refuse(f"role {agent.role!r} is none of {', '.join(ROLES)}")
    if type(agent.at_once) is not int or agent.at_once < 1:
        refuse(f"{agent.at_once!r} records at once: a number from 1 is wanted")
    for table in agent.tables:
        if not isinstance(table, Table):
            refuse(f"{table!r} is no tpstream.Table")
        for other in others:
            if other.name != agent.name and table.name in (one.name for one in other.tables):
                refuse(f"table {table.name} belongs to agent {other.name!r}, and a table belongs to one agent")


def check_partitions(agents: Iterable[Agent], partitions: int) -> None:
    """Refuse an agent whose tables would not be where its records are. Raises ConfigurationError.

    A record's state is in its own partition number of the changelogs, of which there are TPSTREAM_PARTITIONS.
    """
    for agent in agents:
        for topic in agent.topics:
            count = topic.partitions or partitions if topic.by_device else 1
            if agent.tables and count != partitions:
                tables = ", ".join(table.name for table in agent.tables)
                raise ConfigurationError(
                    f"agent {agent.name!r}: topic {topic.name} has {count} partitions and is joined by key with the "
                    f"changelogs of {tables}, which have {partitions}; declare the topic without partitions= (if it "
                    f"is there already, raise it: `kafka-topics.sh --alter --topic {topic.name} --partitions "
                    f"{partitions}`), or set TPSTREAM_PARTITIONS={count} and begin a new life"
                )


def _source(handler: Callable[..., Any]) -> str:
    code = getattr(inspect.unwrap(handler), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else repr(handler)

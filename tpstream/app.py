"""What a data engineer declares things on: `app.topic`, `app.agent`, `app.batch_agent`, `app.window`.

Declaring has no effect by itself. A worker (`tpstream worker`) imports `agents/`, `tables/`
and the user's package, takes the agents of its roles, and runs them on the lane.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tpstream.bus.agent import Agent, Handler, check_declaration
from tpstream.bus.stream import Stream, driven
from tpstream.bus.table import Table
from tpstream.bus.topics import Topic, declare
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings
from tpstream.windows.definition import Window, window
from tpstream.windows.fields import check
from tpstream.windows.over_topic import agent_of, handler_of, table_of

if TYPE_CHECKING:
    from tpstream.devices.catalog import Catalog
    from tpstream.lua.pool import Scripts
    from tpstream.storage.sinks import Store


V = TypeVar("V")

StreamHandler = Callable[[Stream[Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What a handler may use besides its batch: `batch.services`."""

    settings: Settings
    catalog: Catalog
    """Devices, profiles, scripts and rules, as published by `tpstream apply`."""
    scripts: Scripts
    """Runs Lua; role process."""
    store: Store | None = None
    """Sinks of the store's tables; role store."""


class App:
    """A registry of topics, agents and windows. There is one, `tpstream.app`; tests make their own."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.topics: dict[str, Topic[Any]] = {}
        """Those of the user's own, by name."""
        self._modules: dict[str, str | None] = {}
        """Where each agent was declared."""
        self.windows: dict[str, Window] = {}

    def topic(
        self,
        name: str,
        type: type[V],
        *,
        partitions: int | None = None,
        compact: bool = False,
        ticks: bool = False,
    ) -> Topic[V]:
        """Declare a topic of your own, of a msgspec Struct, a dict (`dict[str, float]`, say) or bytes.

        A worker whose agents name it makes it at its start where it is not there: with TPSTREAM_PARTITIONS,
        or `partitions`, and compacted if `compact`. One that has another number of partitions is refused.
        `ticks`: where it is quiet, tpstream appends records without key and value to it, so that what is due
        by the clock (the last windows over it) is done; not for a topic whose other readers mind these.
        """
        topic = declare(name, type, partitions=partitions, compact=compact, ticks=ticks)
        known = self.topics.setdefault(name, topic)
        if (known.type, known.partitions, known.compact, known.ticks) != (type, partitions, compact, ticks):
            raise ConfigurationError(f"topic {name} is declared twice, in different ways")
        return known

    def batch_agent(
        self,
        *topics: Topic[Any],
        tables: tuple[Table[Any], ...] = (),
        name: str | None = None,
        role: str = "process",
    ) -> Callable[[Handler], Handler]:
        """Declare a handler of batches: records of one partition of one of the topics, in order.

        `tables` are those that it writes; a table belongs to one agent.

        A batch is acknowledged when the handler has returned and what it sent, stored or
        wrote to tables is durable. If it raises, all of that is dropped: `Unavailable` is
        tried again for ever, anything else three times, then the poison record is found by
        bisection and goes to the dead letters.
        """

        def declare(handler: Handler) -> Handler:
            self._add(Agent(name or _name(handler), handler, topics, tables, role), handler)
            return handler

        return declare

    def agent(
        self,
        *topics: Topic[Any],
        tables: tuple[Table[Any], ...] = (),
        name: str | None = None,
        role: str = "process",
        at_once: int = 100,
    ) -> Callable[[StreamHandler], StreamHandler]:
        """Declare a handler of one record after another, with what a batch agent promises.

            @app.agent(readings)
            async def watch(stream: Stream[Reading]) -> None:
                async for reading in stream:
                    ...

        It is called anew for each batch of up to `at_once` records, which its loop runs through: its
        local variables live as long. What is done is done within TPSTREAM_HANDLER_SECONDS, and done
        again when a record of the same batch fails. `Stream` says what else there is.
        """

        def declare(handler: StreamHandler) -> StreamHandler:
            self._add(Agent(name or _name(handler), driven(handler, tables), topics, tables, role, at_once), handler)
            return handler

        return declare

    def _add(self, agent: Agent, handler: Callable[..., Any]) -> None:
        check_declaration(agent, handler, self.agents.values())
        module = getattr(handler, "__module__", None)
        if self._modules.setdefault(agent.name, module) != module:
            raise ConfigurationError(f"two agents are named {agent.name!r}; give one another name=")
        self.agents[agent.name] = agent

    def window(self, name: str, *, topic: Topic[Any] | None = None, time: str = "", **definition: Any) -> Window:
        """Declare an event-time window; see `tpstream.windows.definition.window` for its fields.

        Without `topic` it folds telemetry. With one, made by `app.topic`, it folds the field `key`
        of that topic's JSON objects: the device is the record's key, and the time the object's field
        `time` (ms; where it is absent, the record's timestamp). Results go to tp.windows.v1.
        Raises ConfigurationError naming the window and what is wrong.
        """
        if topic is not None and not isinstance(topic, Topic):
            raise ConfigurationError(f"window {name!r}: topic {topic!r} is no topic; declare `app.topic(name, type)`")
        made = window(name, topic="" if topic is None else topic.name, time=time, **definition)
        if self.windows.get(name, made) != made:
            raise ConfigurationError(f"two windows are named {name!r}; name one of them otherwise")
        if topic is not None:
            same = [known for known in self.windows.values() if known.topic == topic.name]
            check(made, topic, same)
            if agent_of(topic) not in self.agents:
                table = table_of(topic)
                handler = handler_of(topic, table, self.windows.values)
                self.batch_agent(topic, tables=(table,), name=agent_of(topic))(handler)
        self.windows[name] = made
        return made


def _name(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__name__", type(handler).__name__)


app = App()

"""What a data engineer declares things on: `app.batch_agent`, `app.window`.

Declaring has no effect by itself. A worker (`tpstream worker`) imports `agents/`, `tables/`
and the user's package, takes the agents of its roles, and runs them on the lane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tpstream.bus.agent import Agent, Handler
from tpstream.bus.table import Table
from tpstream.bus.topics import Topic
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings
from tpstream.windows.definition import Window, window

if TYPE_CHECKING:
    from tpstream.devices.catalog import Catalog
    from tpstream.lua.pool import Scripts
    from tpstream.storage.sinks import Store


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
    """A registry of agents and windows. There is one, `tpstream.app`; tests make their own."""

    def __init__(self) -> None:
        self.agents: dict[str, Agent] = {}
        self.windows: dict[str, Window] = {}

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
            agent = Agent(name or handler.__name__, handler, topics, tables, role)
            if agent.name in self.agents and self.agents[agent.name].handler.__module__ != handler.__module__:
                raise ConfigurationError(f"two agents are named {agent.name!r}; give one another name=")
            self.agents[agent.name] = agent
            return handler

        return declare

    def window(self, name: str, **definition: Any) -> Window:
        """Declare a tumbling event-time window; see `tpstream.windows.definition.window`."""
        made = window(name, **definition)
        self.windows[name] = made
        return made


app = App()

"""`apply`: check an application, see what differs from what is in force, publish just that.

First the new versions of documents, then one record that names what is in force: a reader
sees the old release or the new one, never half of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tpstream.bus import topics
from tpstream.devices import journal
from tpstream.devices.application import KINDS, Application, load
from tpstream.devices.catalog import Catalog
from tpstream.devices.release import identity
from tpstream.errors import ConfigurationError
from tpstream.messages import Release
from tpstream.settings import Settings

_TOPICS = {"profiles": topics.config_profiles, "scripts": topics.config_scripts, "rules": topics.config_rules}


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of the documents of one kind, by name."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    same: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What `apply` did; printable."""

    app: str
    version: str
    before: str
    """The version that was in force; empty: none."""
    package: str
    """The version of the application's Python; empty: it has none."""
    kinds: Mapping[str, Difference]

    @property
    def nothing(self) -> bool:
        """Whether everything was as it is; then nothing was published."""
        return self.version == self.before

    def __str__(self) -> str:
        if self.nothing:
            return f"{self.app}@{self.version}: nothing changed"
        lines = [
            f"{self.app}@{self.version} is in force ({f'was {self.before}' if self.before else 'for the first time'})"
        ]
        for kind, found in self.kinds.items():
            for mark, names in (("+", found.added), ("~", found.changed), ("-", found.removed)):
                lines += [f"  {mark} {kind}/{name}" for name in names]
        return "\n".join(lines)


async def apply(settings: Settings, directory: Path) -> Changes:
    """Publish the application in a folder; live on every worker within a second.

    Raises ConfigurationError with a line for each problem, Unavailable where Kafka is away;
    in both cases what runs stays as it is.
    """
    application = await asyncio.to_thread(load, directory, settings)
    catalog = await journal.read(settings)
    before = catalog.in_force.get(application.name)
    release = application.release(max(time.time_ns() // 1_000_000, before.created_at + 1 if before else 0))
    changes = compare(before, release, application.package.version)
    if not changes.nothing:
        _refuse_conflicts(application, catalog)
        await journal.write(settings, [*_documents(application, catalog), *_release(release, catalog)])
    return changes


def compare(before: Release | None, after: Release, package: str = "") -> Changes:
    """What differs between two releases of an application."""
    kinds = {}
    for kind in KINDS:
        old: dict[str, str] = getattr(before, kind) if before else {}
        new: dict[str, str] = getattr(after, kind)
        kinds[kind] = Difference(
            added=tuple(sorted(new.keys() - old.keys())),
            changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
            removed=tuple(sorted(old.keys() - new.keys())),
            same=tuple(sorted(name for name in new.keys() & old.keys() if new[name] == old[name])),
        )
    return Changes(after.app, after.version, before.version if before else "", package, kinds)


def _documents(application: Application, catalog: Catalog) -> list[journal.Entry]:
    """The versions that Kafka does not hold yet."""
    return [
        (topic, f"{name}@{document.version}", document)
        for kind, topic in _TOPICS.items()
        for name, document in getattr(application, kind).items()
        if not catalog.holds(topic.name, f"{name}@{document.version}")
    ]


def _release(release: Release, catalog: Catalog) -> list[journal.Entry]:
    """The record that replays look up (it stays), then the one that switches (the next replaces it)."""
    switch = (topics.config_releases, release.app, release)
    if identity(release) in catalog.releases:
        return [switch]
    return [(topics.config_releases, identity(release), release), switch]


def _refuse_conflicts(application: Application, catalog: Catalog) -> None:
    problems = []
    for other in catalog.in_force.values():
        for kind in ("profiles", "rules") if other.app != application.name else ():
            for name in sorted(getattr(application, kind).keys() & getattr(other, kind).keys()):
                file = application.directory / getattr(application, kind)[name].file
                problems.append(f"{file}: {name!r} is in force from the application {other.app}; choose another name")
    if problems:
        raise ConfigurationError("\n".join(problems))

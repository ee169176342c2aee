"""A release: which versions of profiles, scripts and rules an application has in force."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from tpstream.devices.profiles import DEFAULT, Matcher, Profile, ScriptRef, parse, profile_of_definition
from tpstream.messages import Document, Release
from tpstream.rules import definition as rules
from tpstream.rules.definition import Rule

CACHED_DEVICES = 100_000
"""Devices whose profile a view remembers; beyond, the oldest is found anew when it is asked for."""


def content_version(text: str | bytes) -> str:
    """The version of a document: 12 hex digits of the SHA-256 of its text."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:12]


def release_content_version(profiles: Mapping[str, str], scripts: Mapping[str, str], rules: Mapping[str, str]) -> str:
    """The version of a release: equal for equal contents, so that applying the same again changes nothing."""
    kinds = (("profiles", profiles), ("scripts", scripts), ("rules", rules))
    return content_version("\n".join(f"{kind}/{n}@{v}" for kind, names in kinds for n, v in sorted(names.items())))


def identity(release: Release) -> str:
    """app@version: one release of one application."""
    return f"{release.app}@{release.version}"


def combined(releases: Iterable[Release]) -> str:
    """What is in force of all applications, as one text: their identities, sorted, joined by '+'.

    It can be taken apart again, so any worker finds what was in force from the text alone.
    """
    return "+".join(sorted(map(identity, releases)))


class Documents:
    """Every version of every document that the configuration topics hold, by name@version."""

    __slots__ = ("profiles", "rules", "scripts")

    def __init__(self) -> None:
        self.profiles: dict[str, Document] = {}
        self.scripts: dict[str, Document] = {}
        self.rules: dict[str, Document] = {}

    def missing(self, release: Release) -> list[str]:
        """The documents of a release that have not been read yet."""
        kinds = ((release.profiles, self.profiles), (release.scripts, self.scripts), (release.rules, self.rules))
        wanted = ((f"{name}@{version}", held) for names, held in kinds for name, version in names.items())
        return [key for key, held in wanted if key not in held]


class View:
    """One combination of releases, ready to be asked. Never changes, except for what it remembers."""

    def __init__(self, releases: Iterable[Release], documents: Documents) -> None:
        """Raises ConfigurationError where a document cannot be read by this version of tpstream."""
        self.profiles: dict[str, Profile] = {DEFAULT.name: DEFAULT}
        found: dict[str, Rule] = {}
        for release in sorted(releases, key=lambda release: release.app):
            scripts = {}
            for name, version in release.scripts.items():
                source = documents.scripts[f"{name}@{version}"].text
                scripts[name] = ScriptRef(f"{name}@{version}", name, version, source)
            for name, version in release.profiles.items():
                document = documents.profiles[f"{name}@{version}"]
                definition = parse(document.text, document.file)
                self.profiles[name] = profile_of_definition(definition, version, scripts)
            for name, version in release.rules.items():
                document = documents.rules[f"{name}@{version}"]
                found[name] = rules.parse(document.text, document.file)
        self.rules: tuple[Rule, ...] = tuple(found[name] for name in sorted(found))
        self.remembered: dict[str, Profile] = {}
        self._matcher = Matcher(self.profiles.values())

    def find(self, device: str, own: str) -> Profile:
        """The profile of a device, remembered; `own` is the one that its registration names, if any."""
        profile = self.profiles.get(own) if own else None
        if profile is None:
            profile = self._matcher.match(device) or DEFAULT
        if len(self.remembered) >= CACHED_DEVICES:
            del self.remembered[next(iter(self.remembered))]
        self.remembered[device] = profile
        return profile

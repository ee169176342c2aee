"""What a profile is: which devices have it, and which scripts read and write their payloads.

name: soil
devices: ["greenhouse-bin-*"]
scripts: {A: soil.lua}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from types import MappingProxyType
from typing import NamedTuple

from tpstream.errors import ConfigurationError
from tpstream.rules.document import Field, read

SCRIPT_TYPES = {
    "A": "telemetry up",
    "B": "telemetry control down",
    "C": "attributes up",
    "D": "attribute set and get down",
    "E": "command down",
    "F": "event up",
}
"""The script types (docs/applications.md)."""

DIALECTS = ("native",)
DEFAULT_NAME = "default"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SCRIPT_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}\.lua")


class ScriptRef(NamedTuple):
    """One version of one script. Equal ids mean equal sources."""

    id: str
    """name@version: what scripts are cached and quarantined by."""
    name: str
    version: str
    source: str


class ScriptUse(NamedTuple):
    """A script that a profile names, and the place where it does."""

    file: str
    """Within the application's scripts/."""
    at: Field


@dataclass(frozen=True, slots=True)
class ProfileDefinition:
    """A profile as written; its scripts are file names."""

    name: str
    devices: tuple[str, ...] = ()
    scripts: Mapping[str, ScriptUse] = field(default_factory=dict)
    dialect: str = "native"


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile in force, with its scripts by type letter."""

    name: str
    version: str = ""
    devices: tuple[str, ...] = ()
    scripts: Mapping[str, ScriptRef] = field(default_factory=lambda: MappingProxyType({}))
    dialect: str = "native"


DEFAULT = Profile(DEFAULT_NAME)
"""Plain JSON: the profile of devices that no other profile claims."""


def parse(text: str, file: str) -> ProfileDefinition:
    """The profile in a YAML text; ConfigurationError names file, line and field."""
    top = read(text, file).fields(("name",), ("devices", "scripts", "dialect"))
    name = top["name"].text()
    if not _NAME.fullmatch(name):
        raise top["name"].error(f"is {name!r}", "use up to 64 letters, digits, '.', '_' and '-'")
    if name == DEFAULT_NAME:
        raise top["name"].error(f"is {name!r}", "that is the built-in profile; choose another name")
    dialect = top["dialect"].text() if "dialect" in top else "native"
    if dialect not in DIALECTS:
        raise top["dialect"].error(f"is {dialect!r}", f"use one of {', '.join(DIALECTS)}")
    return ProfileDefinition(
        name=name,
        devices=_patterns(top["devices"]) if "devices" in top else (),
        scripts=_scripts(top["scripts"]) if "scripts" in top else {},
        dialect=dialect,
    )


def _patterns(at: Field) -> tuple[str, ...]:
    if not isinstance(at.value, list):
        raise at.error(f"must be a list, is {at.kind()}", 'write it like ["soil-*"]')
    patterns = []
    for item in at.value:
        # A number of digits is a device number all the same.
        text = str(item.value) if isinstance(item.value, int) and not isinstance(item.value, bool) else item.text()
        if "/" in text or "+" in text or "#" in text:
            raise item.error(f"is {text!r}", "device numbers have no '/', '+' or '#'; * and ? match any characters")
        patterns.append(text)
    return tuple(patterns)


def _scripts(at: Field) -> Mapping[str, ScriptUse]:
    uses = {}
    for letter, item in at.fields((), tuple(SCRIPT_TYPES)).items():
        file = item.text()
        if not SCRIPT_FILE.fullmatch(file):
            raise item.error(f"is {file!r}", "name a file in scripts/, like decode.lua")
        uses[letter] = ScriptUse(file, item)
    return uses


class Matcher:
    """Which profile claims a device number: its own number before a pattern, the more
    particular pattern (more plain characters) before the wider, then by name."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._numbers: dict[str, Profile] = {}
        wide = []
        for profile in sorted(profiles, key=lambda profile: profile.name):
            for pattern in profile.devices:
                if _is_plain(pattern):
                    self._numbers.setdefault(pattern, profile)
                else:
                    wide.append((pattern, profile))
        wide.sort(key=lambda pair: -sum(c not in "*?[]" for c in pair[0]))
        self._patterns = [(re.compile(translate(pattern)).match, profile) for pattern, profile in wide]

    def match(self, device: str) -> Profile | None:
        """The profile that claims a number, or None."""
        own = self._numbers.get(device)
        if own is not None:
            return own
        return next((profile for match, profile in self._patterns if match(device)), None)


def _is_plain(pattern: str) -> bool:
    return not any(c in pattern for c in "*?[")


def profile_of_definition(definition: ProfileDefinition, version: str, scripts: Mapping[str, ScriptRef]) -> Profile:
    """The profile in force: the definition with the scripts (by file name) put in.

    ConfigurationError where one of them is missing.
    """
    found = {}
    for letter, use in definition.scripts.items():
        if use.file not in scripts:
            raise missing_script(use)
        found[letter] = scripts[use.file]
    return Profile(definition.name, version, definition.devices, MappingProxyType(found), definition.dialect)


def missing_script(use: ScriptUse) -> ConfigurationError:
    """The complaint about a script that a profile names and that is not there."""
    return use.at.error(f"names {use.file}, which is not in scripts/", "write that script or remove the line")

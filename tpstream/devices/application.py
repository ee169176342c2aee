"""An application folder, read and checked as a whole: app.toml, profiles/*.yaml, scripts/*.lua,
rules/*.yaml and a Python package. All that is wrong with it is said at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from tpstream.devices import profiles
from tpstream.devices.manifest import FILE, read_manifest
from tpstream.devices.package import Declared, Package, check_package, package_version
from tpstream.devices.package import import_package as import_package
from tpstream.devices.profiles import ProfileDefinition
from tpstream.devices.release import content_version, release_content_version
from tpstream.errors import ConfigurationError
from tpstream.messages import Document, Release
from tpstream.rules import definition as rules
from tpstream.rules.definition import Rule
from tpstream.settings import Settings

D = TypeVar("D", ProfileDefinition, Rule)

KINDS = {"profiles": ".yaml", "scripts": ".lua", "rules": ".yaml"}
"""Folder, and what its files are called."""


@dataclass(frozen=True, slots=True)
class Application:
    """A checked application: its documents by name, with content-hash versions."""

    name: str
    directory: Path
    package: Package
    declared: Declared
    profiles: Mapping[str, Document]
    scripts: Mapping[str, Document]
    rules: Mapping[str, Document]

    def release(self, created_at: int) -> Release:
        """What this application wants in force. `created_at` in ms."""
        names = {kind: {n: d.version for n, d in getattr(self, kind).items()} for kind in KINDS}
        return Release(self.name, release_content_version(**names), created_at, **names)


class _Source(NamedTuple):
    """A file as it was read."""

    text: str
    file: str
    """Within the application."""
    shown: str
    """As a person finds it."""

    def document(self, name: str) -> Document:
        return Document(name, content_version(self.text), self.text, self.file)


def load(directory: Path, settings: Settings) -> Application:
    """Read and check an application folder.

    Raises one ConfigurationError with a line for each problem: file, line, field, remedy.
    """
    manifest = read_manifest(directory)
    problems: list[str] = []
    sources = {kind: _sources(directory, kind, suffix, problems) for kind, suffix in KINDS.items()}
    scripts = {Path(source.file).name: source for source in sources["scripts"]}
    for source in scripts.values():
        with _gathered(problems):
            _compile(source, settings)
    found_profiles = _parsed(sources["profiles"], profiles.parse, problems)
    for definition, _ in found_profiles.values():
        uses = definition.scripts.values()
        problems += [str(profiles.missing_script(use)) for use in uses if use.file not in scripts]
    found_rules = _parsed(sources["rules"], rules.parse, problems)
    declared, imported = Declared(), Package(manifest.name)
    with _gathered(problems):
        if manifest.package:
            declared = check_package(directory)
            imported = Package(manifest.name, manifest.package, package_version(directory, manifest.package))
        # Where the import failed, what is missing cannot be told.
        problems += [
            _no_window(rule, declared, manifest.package)
            for rule, _ in found_rules.values()
            if rule.window not in declared.windows
        ]
    if problems:
        raise ConfigurationError("\n".join(problems))
    return Application(
        name=manifest.name,
        directory=directory,
        package=imported,
        declared=declared,
        profiles={name: source.document(name) for name, (_, source) in found_profiles.items()},
        scripts={name: source.document(name) for name, source in scripts.items()},
        rules={name: source.document(name) for name, (_, source) in found_rules.items()},
    )


@contextmanager
def _gathered(problems: list[str]) -> Iterator[None]:
    """Keep what is wrong and go on, so that a person sees all of it at once."""
    try:
        yield
    except ConfigurationError as error:
        problems += str(error).splitlines()


def _sources(directory: Path, kind: str, suffix: str, problems: list[str]) -> list[_Source]:
    found = []
    for path in sorted((directory / kind).glob("[!.]*")):
        if path.suffix in (".yml", ".yaml", ".lua") and path.suffix != suffix:
            problems.append(f"{path}: would be passed over; name it {path.stem}{suffix}")
        elif path.suffix == suffix:
            if not path.is_file():  # a pipe or a device would have us wait for ever
                problems.append(f"{path}: is no file; move it away")
                continue
            try:
                text = path.read_bytes().decode()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{path}: cannot be read as UTF-8 text: {getattr(error, 'strerror', '') or error}")
            else:
                found.append(_Source(text, f"{kind}/{path.name}", str(path)))
    return found


def _parsed(
    sources: list[_Source], parse: Callable[[str, str], D], problems: list[str]
) -> dict[str, tuple[D, _Source]]:
    found: dict[str, tuple[D, _Source]] = {}
    for source in sources:
        with _gathered(problems):
            definition = parse(source.text, source.shown)
            if definition.name in found:
                other = found[definition.name][1].shown
                problems.append(f"{source.shown}: {definition.name!r} is the name of {other} already; choose another")
            found.setdefault(definition.name, (definition, source))
    return found


def _compile(source: _Source, settings: Settings) -> None:
    if not profiles.SCRIPT_FILE.fullmatch(Path(source.file).name):
        raise ConfigurationError(f"{source.shown}: is no name for a script; use letters, digits, '.', '_' and '-'")
    if len(source.text) > settings.script_max_chars:
        raise ConfigurationError(
            f"{source.shown}: has {len(source.text)} characters, above TPSTREAM_SCRIPT_MAX_CHARS="
            f"{settings.script_max_chars}; make it smaller"
        )
    from tpstream.lua.pool import check  # Lua only where there is a script

    try:
        check(source.text, settings.script_max_chars)
    except ConfigurationError as error:  # "line N: what"
        place, _, what = str(error).partition(": ")
        line = place.removeprefix("line ")
        at = f"{source.shown}:{line}: {what}" if line.isdigit() else f"{source.shown}: {error}"
        raise ConfigurationError(f"{at}; mend the script") from None


def _no_window(rule: Rule, declared: Declared, package: str) -> str:
    file, line = rule.window_at
    if not package:
        return (
            f"{file}:{line}: field window: names {rule.window!r}, but {FILE} names no Python package to declare it; "
            f'add package = "NAME" to {FILE}, and app.window to that package'
        )
    there = f"declared there: {', '.join(declared.windows)}" if declared.windows else "it declares none"
    return (
        f"{file}:{line}: field window: names {rule.window!r}, which the application's Python package does not "
        f"declare ({there}); declare it with app.window or correct the name"
    )

"""app.toml: what an application is called, and which Python package it brings.

name = "greenhouse"
package = "greenhouse"
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tpstream.errors import ConfigurationError

FILE = "app.toml"
ENTRY_POINTS = "tpstream.apps"
"""Entry-point group of installed applications; each names a module in the application's folder."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PACKAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Manifest(NamedTuple):
    """What app.toml says."""

    name: str
    package: str
    """Import name; empty: the application has no Python."""


def read_manifest(directory: Path) -> Manifest:
    """The manifest of an application folder; ConfigurationError names file and line."""
    path = directory / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = "is no folder" if not directory.is_dir() else f"has no {FILE}"
        raise ConfigurationError(f'{directory} {what}; give the folder whose {FILE} says name = "…"') from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read: {getattr(error, 'strerror', '') or error}") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        line = int(found[1]) if found else len(text.splitlines())  # "at end of document"
        raise ConfigurationError(f"{path}:{max(line, 1)}: not TOML: {error}") from None
    for key, value in content.items():
        at = f"{path}:{_line_of(text, key)}: field {key}"
        if key not in Manifest._fields:
            raise ConfigurationError(f"{at}: is unknown; known here: {', '.join(Manifest._fields)}")
        if not isinstance(value, str):
            raise ConfigurationError(f"{at}: must be a text; write it in quotes")
    name, package = content.get("name", ""), content.get("package", "")
    if not _NAME.fullmatch(name):
        what = f"is {name!r}" if "name" in content else "is missing"
        raise ConfigurationError(
            f"{path}:{_line_of(text, 'name')}: field name: {what}; use up to 64 of a-z, 0-9, '_' and '-'"
        )
    if package and not _PACKAGE.fullmatch(package):
        raise ConfigurationError(
            f"{path}:{_line_of(text, 'package')}: field package: is {package!r}; "
            "name one top-level Python package in this folder"
        )
    return Manifest(name, package)


def locate(app: str) -> Path:
    """The folder of an application: a path, or the name of an entry point in `tpstream.apps`."""
    path = Path(app)
    if path.is_dir():
        return path.resolve()
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == app:
            spec = find_spec(point.module)
            if spec is not None and spec.origin is not None:
                package = Path(spec.origin).parent
                return package if (package / FILE).exists() else package.parent
    raise ConfigurationError(
        f"application {app!r} is neither a folder nor an installed entry point in {ENTRY_POINTS}; check --app"
    )


def _line_of(text: str, key: str) -> int:
    """The line on which a top-level key stands; 1 where it does not."""
    found = re.search(rf"^[ \t]*\[?[\"']?{re.escape(key)}\b", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1

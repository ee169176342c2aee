"""The Python of an application: imported explicitly, every module of it, or refused with file and line.

A worker imports it into its own process. To check it, `tpstream apply` has a process of its
own import it (`python -m tpstream.devices.package DIR`), so that the registry of agents and
windows is fresh and whatever the package does at import harms nobody.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple

from tpstream.devices.manifest import FILE, locate, read_manifest
from tpstream.devices.release import content_version
from tpstream.errors import ConfigurationError, TpstreamError

IMPORT_SECONDS = 30.0
"""How long the import of a package may take when it is checked."""


class Package(NamedTuple):
    """An application's Python; `name` and `version` (a content hash) are empty where it has none."""

    app: str = ""
    name: str = ""
    version: str = ""

    @property
    def identity(self) -> str:
        """app@version, as workers say in /health which Python they run; empty: none."""
        return f"{self.app}@{self.version}" if self.name else ""


class Declared(NamedTuple):
    """What a package declares, by name."""

    windows: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()


def import_package(app: str | Path) -> Package:
    """Import the package of an application (a folder, or an entry point in `tpstream.apps`), and each
    of its modules, into this process.

    Raises ConfigurationError naming file and line where that fails.
    """
    directory = locate(str(app))
    app_name, name = read_manifest(directory)
    if not name:
        return Package(app_name)
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
        origin = Path(module.__file__ or next(iter(module.__path__)))
        if not origin.resolve().is_relative_to(directory):
            raise ConfigurationError(
                f"{directory / FILE}: field package: {name!r} is imported from {origin.parent}, "
                "another package of that name; rename yours"
            )
        _import_below(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: no package may end a worker by being imported
        raise _located(error, directory, name) from error
    return Package(app_name, name, package_version(directory, name))


def package_version(directory: Path, name: str) -> str:
    """Content hash of the package's Python files; it changes when any of them does."""
    root = directory / name
    files = sorted(root.rglob("*.py")) if root.is_dir() else [directory / f"{name}.py"]
    parts = [f"{file.relative_to(directory).as_posix()}\0".encode() + file.read_bytes() for file in files]
    return content_version(b"\0".join(parts))


def check_package(directory: Path) -> Declared:
    """Import the package in a process of its own; what it declares. ConfigurationError as above."""
    command = [sys.executable, "-m", "tpstream.devices.package", str(directory.resolve())]
    environ = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, env=environ, capture_output=True, timeout=IMPORT_SECONDS, stdin=subprocess.DEVNULL, check=False
        )
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"{directory}: importing the package took more than {IMPORT_SECONDS:g} s; "
            "a module may only declare things, move work into agents"
        ) from None
    except ValueError:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ConfigurationError(
            f"{directory}: importing the package ended the process with code {done.returncode}"
            f"{': ' + said[-1] if said else ''}; a module may only declare things"
        ) from None
    if "error" in answer:
        raise ConfigurationError(answer["error"])
    return Declared(tuple(answer["windows"]), tuple(answer["agents"]))


def _import_below(module: ModuleType) -> None:
    """Every module below a package: one that nobody imports would silently declare nothing."""
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if found.name != "__main__":
            _import_below(importlib.import_module(f"{module.__name__}.{found.name}"))


def _located(error: BaseException, directory: Path, name: str) -> ConfigurationError:
    """The error in one line, with the innermost place in the user's own files."""
    what = str(error) if isinstance(error, TpstreamError) else f"{type(error).__name__}: {error}"
    what = " ".join(what.split())
    if isinstance(error, SyntaxError) and error.filename and _is_below(error.filename, directory):
        return ConfigurationError(f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}; mend that line")
    if isinstance(error, ModuleNotFoundError) and error.name == name:
        return ConfigurationError(
            f"{directory / FILE}: field package: there is no package {name!r} in {directory}; "
            f"make {name}/__init__.py or remove the field"
        )
    place = _innermost(error.__traceback__, directory)
    if place is None:
        return error if isinstance(error, ConfigurationError) else ConfigurationError(f"{directory / name}: {what}")
    return ConfigurationError(f"{place[0]}:{place[1]}: {what}")


def _innermost(trace: TracebackType | None, directory: Path) -> tuple[str, int] | None:
    place = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if _is_below(file, directory):
            place = (file, trace.tb_lineno)
        trace = trace.tb_next
    return place


def _is_below(file: str, directory: Path) -> bool:
    return Path(file).is_absolute() and Path(file).is_relative_to(directory)


def _answer(directory: Path) -> dict[str, object]:
    from tpstream.app import app

    try:
        import_package(directory)
    except ConfigurationError as error:
        return {"error": str(error)}
    return {"windows": sorted(app.windows), "agents": sorted(app.agents)}


if __name__ == "__main__":
    # What the package prints must not be taken for the answer.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(_answer(Path(sys.argv[1]))), file=out, flush=True)
    os._exit(0)  # threads that the package has started do not matter

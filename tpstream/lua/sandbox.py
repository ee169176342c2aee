"""One script in a Lua runtime of its own, with what it may reach and use (docs/scripts.md).

Not safe by itself: a C function of Lua cannot be interrupted. What gets through the budgets
here is killed with its whole process (`process.py`).
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from lupa.lua54 import LuaError, LuaMemoryError, LuaRuntime

from tpstream.errors import ConfigurationError

_HERE = Path(__file__).parent
_SANDBOX = (_HERE / "sandbox.lua").read_bytes()
_JSON = (_HERE / "json.lua").read_bytes()
_COMPILE_MEMORY = 32_000_000

ENTRIES = ("decode", "encode")
"""Names of the entry points: up (types A, C, F) and down (B, D, E), besides `encodeInp`."""


class Budget(NamedTuple):
    """What one call may use."""

    cpu_ms: int = 25
    memory_bytes: int = 8_000_000
    max_result: int = 300_000


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    ERROR = 1
    """An ordinary error of the script: no offence."""
    CPU = 2
    MEMORY = 3
    STUCK = 4
    """Stopped with its process."""

    @property
    def offence(self) -> bool:
        """Whether it counts towards the script's quarantine."""
        return self >= Status.CPU


class Sandbox:
    """A script, compiled. Throw it away after an offence: its runtime may be torn."""

    def __init__(self, source: str, budget: Budget) -> None:
        """Raises ConfigurationError where the source does not compile."""
        check(source)
        runtime = _runtime()
        json = runtime.execute(_JSON, name="=json")
        limits = (budget.cpu_ms / 1000, budget.max_result)
        self._call = runtime.execute(_SANDBOX, source.encode(), json, *limits, name="=sandbox")
        runtime.set_max_memory(budget.memory_bytes, total=False)
        self._runtime = runtime

    def call(self, entry: bytes, msg: bytes, topic: bytes) -> tuple[int, bytes]:
        """Run the entry point once: its status, and the result or one line that says what was wrong."""
        try:
            return self._call(entry, msg, topic)  # type: ignore[no-any-return]
        except LuaMemoryError:
            return Status.MEMORY, b""
        except LuaError as error:
            if "not enough memory" in str(error):
                return Status.MEMORY, b""
            return Status.ERROR, str(error).splitlines()[0].encode()[:300]


def check(source: str, max_chars: int = 50_000) -> None:
    """Compile a script without running it. Raises ConfigurationError naming the line."""
    if len(source) > max_chars:
        raise ConfigurationError(f"the script has {len(source)} characters, more than {max_chars}")
    runtime = _runtime()
    runtime.set_max_memory(_COMPILE_MEMORY, total=False)
    try:
        problem = runtime.execute(
            b'local f, problem = load("local _ENV = ...; " .. (...), "=line", "t") return problem', source.encode()
        )
    except (LuaError, UnicodeEncodeError) as error:
        raise ConfigurationError(f"the script does not compile: {str(error).splitlines()[0]}") from None
    if problem is not None:
        _, line, what = problem.decode(errors="replace").split(":", 2)
        raise ConfigurationError(f"line {line}: the script does not compile: {what.strip()}")


def _runtime() -> Any:
    return LuaRuntime(encoding=None, register_eval=False, register_builtins=False, max_memory=0)

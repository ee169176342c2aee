"""Health: each part of a process says whether it can do its work, and in one line why not.

health = Health()
health.register("kafka", lambda: Part(producer.available, "connected"))
status, report = health.answer()
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

Number = int | float


class Part:
    """What a check found: ok or not, one line for a person, and numbers for a program."""

    __slots__ = ("detail", "numbers", "ok")

    def __init__(self, ok: bool, detail: str = "", **numbers: Number | str) -> None:
        self.ok = ok
        self.detail = detail
        self.numbers = numbers

    def as_dict(self) -> dict[str, Any]:
        """The part's entry in the report."""
        return {"ok": self.ok, "detail": self.detail, **self.numbers}

    def __repr__(self) -> str:
        return f"Part({self.as_dict()})"


Check = Callable[[], Part]
Checks = Callable[[], Mapping[str, Part]]


class Health:
    """The parts of one process. Checks are called at each request: they look, they never wait."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._groups: list[Checks] = []
        self._numbers: dict[str, Callable[[], Number | str]] = {}

    def register(self, name: str, check: Check) -> None:
        """Add a part, or replace the check of that name. ValueError: the name is taken by a number."""
        if name == "ok" or name in self._numbers:
            raise ValueError(f"health: {name!r} is no name for a part, it is taken")
        self._checks[name] = check

    def unregister(self, name: str) -> None:
        """Forget a part that this process no longer has."""
        self._checks.pop(name, None)

    def include(self, checks: Checks) -> None:
        """Add parts that come and go. What is registered under the same name goes before."""
        self._groups.append(checks)

    def number(self, name: str, value: Callable[[], Number | str]) -> None:
        """Add a number (or text) on the top level, such as "lag". ValueError: the name is taken by a part."""
        if name == "ok" or name in self._checks:
            raise ValueError(f"health: {name!r} is no name for a number, it is taken")
        self._numbers[name] = value

    def report(self) -> dict[str, Any]:
        """`ok`, the top-level numbers, and one entry per part: {"ok": …, "detail": …, numbers…}."""
        parts = {name: part.as_dict() for group in self._groups for name, part in group().items()}
        parts |= {name: _ask(name, check).as_dict() for name, check in self._checks.items()}
        numbers: dict[str, Any] = {}
        for name, value in self._numbers.items():
            try:
                numbers[name] = value()
            except Exception as error:
                log.warning("health: the number %s failed: %r", name, error)
                numbers[name] = None
        return {"ok": all(part["ok"] for part in parts.values()), **numbers, **parts}

    def answer(self) -> tuple[int, dict[str, Any]]:
        """The HTTP status (200: every part is well, else 503) and the report."""
        report = self.report()
        return (200 if report["ok"] else 503), report


def _ask(name: str, check: Check) -> Part:
    try:
        return check()
    except Exception as error:
        log.warning("health: the check of %s failed: %r", name, error)
        return Part(False, f"its check failed: {error!r}")

"""Deliberate breaks of a worker, to show that the oracle catches them. Each patches the process it is called in."""

from __future__ import annotations

from collections.abc import Callable

BREAKS: dict[str, Callable[[], None]] = {}

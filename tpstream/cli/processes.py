"""The processes of this machine that announced themselves in the data folder, asked over HTTP."""

from __future__ import annotations

from typing import Any, NamedTuple

from tpstream.cli.http import request
from tpstream.cli.worker import ROLES
from tpstream.errors import Unavailable
from tpstream.observability.announce import announced
from tpstream.settings import Settings


class Answer(NamedTuple):
    """What a process says of its health."""

    name: str
    port: int
    ok: bool
    report: dict[str, Any]


def answers(settings: Settings) -> list[Answer]:
    """The /health of every announced process, by name; one that does not answer is not ok."""
    found = []
    for one in announced(settings.data_dir):
        try:
            status, report = request(settings.host, one.port, "GET", "/health", seconds=5)
        except Unavailable as error:
            status, report = 0, {"ok": False, "http": {"ok": False, "detail": str(error)}}
        found.append(Answer(one.name, one.port, status == 200, report if isinstance(report, dict) else {}))
    return found


class Workers(NamedTuple):
    """The workers that were found, and those of them that run another version of an application's Python, or none."""

    found: list[str]
    stale: list[str]


def workers(settings: Settings, app: str, version: str) -> Workers:
    """The workers that announced themselves in the data folder; one that does not answer is not called stale."""
    found = [one for one in answers(settings) if one.name in ROLES]
    answered = [one for one in found if "life" in one.report]
    return Workers(
        [one.name for one in found], [one.name for one in answered if one.report.get("app") != f"{app}@{version}"]
    )

"""`tpstream health`: whether every part is well."""

from __future__ import annotations

from typing import Any

import click

from tpstream.cli import output, processes
from tpstream.cli.context import json_option, pass_settings
from tpstream.cli.http import request
from tpstream.settings import Settings


@click.command()
@json_option
@pass_settings
def health(settings: Settings, as_json: bool) -> None:
    """Whether every part is well: what serves the web port, and what announced itself in the data folder.

    Exits with 0 if all is well, 1 if a part is not, 3 if the web port does not answer.
    """
    status, report = request(settings.host, settings.web_port, "GET", "/health")
    web = processes.Answer("web", settings.web_port, status == 200, report if isinstance(report, dict) else {})
    others = [one for one in processes.answers(settings) if one.port != settings.web_port]
    found = [web, *others]
    ok = all(one.ok for one in found)
    if as_json:
        output.as_json({"ok": ok, "processes": {one.name: {"port": one.port, **one.report} for one in found}})
    else:
        output.table(("", "process", "part", "detail"), (row for one in found for row in _rows(one)))
    if not ok:
        click.get_current_context().exit(1)


def _rows(one: processes.Answer) -> list[tuple[str, str, str, Any]]:
    parts = {name: part for name, part in one.report.items() if isinstance(part, dict) and "ok" in part}
    rows = [
        ("ok" if part["ok"] else "NO", f"{one.name} :{one.port}", name, part.get("detail", ""))
        for name, part in parts.items()
    ]
    return rows or [("ok" if one.ok else "NO", f"{one.name} :{one.port}", "", "")]

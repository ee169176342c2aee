"""`tpstream settings`: every setting, its present value and its meaning."""

from __future__ import annotations

from dataclasses import fields

import click

from tpstream.cli import output
from tpstream.cli.context import json_option, pass_settings
from tpstream.settings import PREFIX, Settings


@click.command()
@json_option
@pass_settings
def settings(values: Settings, as_json: bool) -> None:
    """Every setting, its present value and its meaning; * marks what is not the default."""
    rows = []
    for declared in fields(Settings):
        value = _shown(declared.name, getattr(values, declared.name))
        changed = getattr(values, declared.name) != declared.default
        rows.append((PREFIX + declared.name.upper(), value, changed, declared.metadata["meaning"]))
    if as_json:
        output.as_json([{"name": n, "value": v, "changed": c, "meaning": m} for n, v, c, m in rows])
        return
    output.table(("setting", "value", "", "meaning"), ((n, v, "*" if c else "", m) for n, v, c, m in rows))


def _shown(name: str, value: object) -> object:
    if "password" in name and value:
        return "(set)"
    return value if isinstance(value, int | float) else str(value)

"""What commands share: the settings that `root` has read, and the options --json and --app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

pass_settings = click.make_pass_decorator(Settings)
"""Hands the command its `Settings` as first argument."""

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")


def app_option(help: str, type: click.ParamType | None = None) -> Callable[[Any], Any]:
    """The option --app DIR, whose value is None where it is not given; given twice it is refused."""
    return click.option("--app", metavar="DIR", multiple=True, type=type, callback=_only_one, help=help)


def _only_one(_context: click.Context, _option: click.Parameter, given: Sequence[Any]) -> Any:
    if len(given) > 1:
        raise ConfigurationError(
            f"--app is given {len(given)} times, but one worker runs one application's Python; put the Python of all "
            "into one application's package, or leave --app to the one that has some: applications of YAML and Lua "
            "alone stand beside it with `tpstream apply DIR`"
        )
    return given[0] if given else None

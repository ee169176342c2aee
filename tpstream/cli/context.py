"""What commands share: the settings that `root` has read, and the option --json."""

from __future__ import annotations

import click

from tpstream.settings import Settings

pass_settings = click.make_pass_decorator(Settings)
"""Hands the command its `Settings` as first argument."""

json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs.")

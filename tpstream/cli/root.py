"""The command `tpstream`: its commands in groups, each in a file that is imported when it is run."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from tpstream import __version__
from tpstream.settings import Settings

GROUPS: dict[str, dict[str, str]] = {
    "Run": {
        "up": "Everything on this machine; --simulate adds a fleet of devices",
        "bridge": "The MQTT bridge: devices in, Kafka out, and back",
        "worker": "The agents: decode, windows, rules, downlink; and store",
        "simulate": "A greenhouse fleet that reacts to its commands",
        "replay": "Publish a CSV as devices over MQTT",
    },
    "Configure": {
        "apply": "Check and publish an application folder, live within a second",
        "devices": "List, show, add and remove devices",
        "settings": "Every setting, its present value and its meaning",
    },
    "Look and act": {
        "send": "Send a device a command and wait for its result",
        "sql": "Query the store",
        "topics": "The Kafka topics; follow one with --tail",
        "health": "Whether every part is well",
    },
}
"""Group, command, one line. The file is `tpstream/cli/COMMAND.py`, the command in it has that name."""

HELP = "tpstream.help"

EPILOG = """\b
Start here:   tpstream up --simulate
Exit codes:   0 done · 1 failed · 2 wrong setting, file or argument · 3 a part is not reachable
Settings are TPSTREAM_… in the environment, or in a TOML file given by --config."""


class Commands(click.Group):
    """Knows its commands by name and imports each one's file only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands in the order of the groups."""
        return [name for commands in GROUPS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name from its file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        try:
            command = getattr(import_module(f"tpstream.cli.{cmd_name}"), cmd_name)
        except ModuleNotFoundError as error:
            if error.name != f"tpstream.cli.{cmd_name}":
                raise
            raise click.ClickException(f"`{cmd_name}` is not part of this installation") from None
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Note first whether only help is asked for."""
        ctx.meta[HELP] = not {"-h", "--help"}.isdisjoint(ctx.args)
        return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The groups, without importing any command."""
        for group, commands in GROUPS.items():
            with formatter.section(group):
                formatter.write_dl(list(commands.items()), col_max=12)


@click.group(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="COMMAND …",
    options_metavar="[--config FILE]",
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Settings as TOML; the environment wins over it.",
)
@click.version_option(__version__, message="tpstream %(version)s")
@click.pass_context
def root(ctx: click.Context, config: Path | None) -> None:
    """Devices speak MQTT; what they say becomes rows, windows, alarms, and commands back."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return
    # Help must come even where a setting is wrong.
    ctx.obj = Settings() if ctx.meta[HELP] else Settings.load(config=config)

"""The command line: one file per command (group), imported only when it is used."""

from __future__ import annotations

import sys


def main() -> None:
    """`tpstream …`: run a command and exit with its code."""
    from tpstream.cli.entry import run

    sys.exit(run(sys.argv[1:]))

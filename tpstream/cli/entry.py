"""Run a command line to an exit code; whatever goes wrong is one line on stderr.

Exit codes: 0 done, 1 failed, 2 a setting, file or argument is wrong, 3 a part is not reachable,
130 interrupted. The stack trace is shown only with TPSTREAM_DEBUG=1.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

import click

from tpstream.cli.root import root
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable

FAILED, WRONG, UNREACHABLE, INTERRUPTED, PIPE_CLOSED = 1, 2, 3, 130, 141


def run(arguments: Sequence[str]) -> int:
    """The exit code of `tpstream ARGUMENTS`."""
    # What the Kafka client says of an outage is said by our own line; `logs.set_up` lets it speak again.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        result = root.main(list(arguments), prog_name="tpstream", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # `tpstream … | head`: nobody listens any more, which is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except (KeyboardInterrupt, click.Abort):  # click has ended the line
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("TPSTREAM_DEBUG") == "1":
            traceback.print_exc()
        for line in _message(error).splitlines():
            click.echo(f"tpstream: {line}", err=True)
        return code_of(error)
    return result if isinstance(result, int) else 0


def code_of(error: Exception) -> int:
    """The exit code that stands for an error."""
    if isinstance(error, ConfigurationError | click.UsageError):
        return WRONG
    if isinstance(error, Unavailable | ConnectionError):
        return UNREACHABLE
    return error.exit_code if isinstance(error, click.ClickException) else FAILED


def _message(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "tpstream"
        text = error.format_message().rstrip(".")
        return f"{text[:1].lower()}{text[1:]}; see `{path} --help`"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, TpstreamError):
        return str(error)
    first = (str(error).splitlines() or [""])[0]
    return f"unexpected {type(error).__name__}: {first}; TPSTREAM_DEBUG=1 shows where"

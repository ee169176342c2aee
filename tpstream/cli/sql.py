"""`tpstream sql`: one query, as the read-only user `bi`."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
from urllib.parse import urlencode

import click

from tpstream.cli import output
from tpstream.cli.context import pass_settings
from tpstream.cli.http import REMEDY
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable
from tpstream.settings import Settings

SECONDS = 300.0
"""How long a query may be silent; the store's own limits are shorter."""


@click.command()
@click.argument("query", default="-")
@click.option("--json", "form", flag_value="JSONEachRow", help="One JSON object per row and line.")
@click.option("--csv", "form", flag_value="CSVWithNames", help="CSV with a line of names.")
@click.option("--user", default="bi", show_default=True, help="The store's user; `bi` may only read.")
@pass_settings
def sql(settings: Settings, query: str, form: str | None, user: str) -> None:
    """Query the store. Without QUERY, or with -, it is read from standard input.

    \b
    tpstream sql "SELECT device, key, number FROM telemetry_latest"
    tpstream sql --csv "SELECT * FROM windows" > windows.csv
    """
    if query == "-":
        if sys.stdin.isatty():
            raise ConfigurationError('no query; write it like tpstream sql "SELECT count() FROM telemetry"')
        query = sys.stdin.read()
    password = settings.store_password if user == settings.store_user else ""
    wanted = form or "JSONCompact"
    connection = http.client.HTTPConnection(*settings.store_address, timeout=SECONDS)
    try:
        response = _ask(connection, settings, query, wanted, user, password)
        if wanted == "JSONCompact" and response.getheader("X-ClickHouse-Format", wanted) == wanted:
            _print_table(response.read())
        else:  # as it comes: it may be large
            shutil.copyfileobj(response, sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except (OSError, http.client.HTTPException) as error:
        host, port = settings.store_address
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = REMEDY.format(setting="TPSTREAM_STORE_HOST and TPSTREAM_STORE_PORT")
        raise Unavailable(f"the store at http://{host}:{port} is not reachable ({why}); {remedy}") from None
    finally:
        connection.close()


def _ask(
    connection: http.client.HTTPConnection, settings: Settings, query: str, form: str, user: str, password: str
) -> http.client.HTTPResponse:
    parameters = urlencode({"database": settings.database, "default_format": form})
    headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password, "Content-Type": "text/plain; charset=utf-8"}
    connection.request("POST", f"/?{parameters}", query.encode(), headers)
    response = connection.getresponse()
    if response.status != 200:
        raise TpstreamError(f"the store refused the query: {_reason(response.read())}")
    return response


def _reason(body: bytes) -> str:
    """ClickHouse's own words, on one line, without its version."""
    text = " ".join(body.decode(errors="replace").split())
    return text.removeprefix("Code: ").split(" (version ")[0][:1_000] or "without a reason"


def _print_table(body: bytes) -> None:
    try:
        answer = json.loads(body)
        names = [column["name"] for column in answer["meta"]]
    except (ValueError, KeyError, TypeError):
        click.echo(body.decode(errors="replace"), nl=False)
        return
    output.table(names, answer["data"])
    if sys.stdout.isatty():
        count = len(answer["data"])
        click.secho(f"{count} row{'' if count == 1 else 's'}", dim=True)

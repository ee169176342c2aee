"""`tpstream send`: a command to a device, and its result."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import click

from tpstream.cli import output
from tpstream.cli.context import json_option, pass_settings
from tpstream.cli.http import refusal, request
from tpstream.errors import ConfigurationError, TpstreamError, Unavailable
from tpstream.messages import CommandState
from tpstream.settings import Settings

ENDED = {
    CommandState.SUCCEEDED,
    CommandState.REFUSED,
    CommandState.TIMED_OUT,
    CommandState.EXPIRED,
    CommandState.CANCELLED,
    CommandState.FAILED,
}
WORDS = {
    CommandState.ENCODED: "on its way",
    CommandState.SENT: "the broker has it",
    CommandState.DELIVERED: "the device has it",
}
POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""Waited beyond the command's own time, for its end to be stored."""


@click.command()
@click.argument("device")
@click.argument("method")
@click.argument("params", default="", metavar="[PARAMS]")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    help="Seconds to wait for the answer, each time it is sent.  [default: TPSTREAM_COMMAND_TIMEOUT]",
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    help="Times it may be sent; 1: at most once.  [default: TPSTREAM_COMMAND_ATTEMPTS]",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the result; print the command's id.")
@json_option
@pass_settings
def send(
    settings: Settings,
    device: str,
    method: str,
    params: str,
    timeout: float | None,
    attempts: int | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Send DEVICE the command METHOD, with PARAMS as a JSON object, and wait for its result.

    Waits --timeout times --attempts, and 10 s more for the result to be stored.
    Exits with 0 if the device did it, with 1 if it refused or did not answer in time.

    \b
    tpstream send greenhouse-1 fan '{"on": true}'
    """
    body = {"method": method, "params": _object(params), "timeout": timeout, "attempts": attempts}
    sent = _post(settings, device, {name: value for name, value in body.items() if value is not None})
    if no_wait:
        if as_json:
            output.as_json(sent)
        else:
            click.echo(sent["id"])
        return
    tries = attempts or settings.command_attempts
    patience = (timeout or settings.command_timeout) * tries + GRACE_SECONDS
    found = _wait(settings, device, sent["id"], patience, quiet=as_json)
    if as_json:
        output.as_json(found)
    else:
        took = (found["updated_at"] - found["created_at"]) / 1000
        sent_often = f", sent {n} times" if (n := found.get("attempts", 1)) > 1 else ""
        click.echo(f"{found['state']} after {took:.2f} s{sent_often}{_result(found)}")
    if found["state"] != CommandState.SUCCEEDED:
        click.get_current_context().exit(1)


def _object(params: str) -> dict[str, Any] | None:
    if not params:
        return None
    try:
        value = json.loads(params)
    except ValueError as error:
        raise ConfigurationError(f"""PARAMS is not JSON ({error}); write it like '{{"on": true}}'""") from None
    if not isinstance(value, dict):
        raise ConfigurationError("""PARAMS must be a JSON object; write it like '{"on": true}'""")
    return value


def _post(settings: Settings, device: str, body: dict[str, Any]) -> dict[str, Any]:
    path = f"/api/v1/devices/{quote(device, safe='')}/commands"
    status, answer = request(settings.host, settings.web_port, "POST", path, body=body, seconds=15)
    if status == 400:
        raise ConfigurationError(str(refusal("the API", status, answer)))
    if status != 202:
        raise refusal("the API", status, answer)
    assert isinstance(answer, dict)
    return answer


def _wait(settings: Settings, device: str, id: str, patience: float, quiet: bool) -> dict[str, Any]:
    """The command once it has ended. TpstreamError where it does not within `patience` seconds."""
    deadline = time.monotonic() + patience
    state, attempts = "QUEUED", 0
    while True:
        status, answer = request(settings.host, settings.web_port, "GET", f"/api/v1/commands/{id}")
        if status == 200:
            if answer["state"] not in (state, *ENDED) and not quiet:
                words = WORDS.get(answer["state"])
                click.echo(f"{answer['state']}, {words} …" if words else f"{answer['state']} …")
            state, attempts = answer["state"], answer.get("attempts", 0)
            if state in ENDED:
                assert isinstance(answer, dict)
                return answer
        elif status not in (404, 503):  # not stored yet; the store is away for a moment
            raise refusal("the API", status, answer)
        if time.monotonic() > deadline:
            waits = _why_unsent(settings, device) if state == CommandState.ENCODED and not attempts else ""
            raise TpstreamError(
                f"command {id} is still {state} after {patience:.0f} s{waits}; look later with "
                f"`tpstream sql \"SELECT state, result FROM commands WHERE id = '{id}'\"`"
            )
        time.sleep(POLL_SECONDS)


def _why_unsent(settings: Settings, device: str) -> str:
    """Why a command that is ready was not sent; a device that never sent points has no online status in the API."""
    from tpstream.web.reads import MAX_ROWS

    rows: list[dict[str, Any]] = []
    with suppress(Unavailable):
        status, answer = request(settings.host, settings.web_port, "GET", f"/api/v1/devices?limit={MAX_ROWS}")
        rows = answer["devices"] if status == 200 else []
    offline = any(row["device"] == device and row.get("online") in (False, 0) for row in rows)
    why = f"{device} is offline" if offline else f"{device} is offline or has an earlier command to answer"
    return f" and was not sent yet: {why}. It stays queued until it expires (TPSTREAM_COMMAND_EXPIRY)"


def _result(found: dict[str, Any]) -> str:
    return f": {found['result']}" if found.get("result") else ""

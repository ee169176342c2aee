"""One HTTP request, as commands make them; connection errors become Unavailable with a remedy."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

from tpstream.errors import TpstreamError, Unavailable

REMEDY = "start `tpstream up`, or set {setting}"


def request(
    host: str,
    port: int,
    method: str,
    path: str,
    *,
    body: Any = None,
    seconds: float = 10.0,
    setting: str = "TPSTREAM_WEB_PORT",
) -> tuple[int, Any]:
    """Status and decoded JSON of a request; None where the body is no JSON."""
    headers = {"Accept": "application/json"}
    data = None
    if body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    status, answer = exchange(host, port, method, path, data, headers, seconds=seconds, setting=setting)
    try:
        return status, json.loads(answer)
    except ValueError:
        return status, None


def exchange(
    host: str,
    port: int,
    method: str,
    path: str,
    data: bytes | None,
    headers: Mapping[str, str],
    *,
    seconds: float,
    setting: str,
) -> tuple[int, bytes]:
    """Status and body of a request. Raises Unavailable where nobody answers in time."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # where a part listens is not where it is asked
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request(method, path, data, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise Unavailable(f"http://{host}:{port} is not reachable ({why}); {REMEDY.format(setting=setting)}") from None
    finally:
        connection.close()


def refusal(where: str, status: int, answer: Any) -> TpstreamError:
    """The error for an answer that is not 2xx; the server's own words where it has some."""
    detail = answer.get("error") or answer.get("message") if isinstance(answer, dict) else None
    return TpstreamError(f"{where} answered {status}: {detail or http.client.responses.get(status, 'an error')}")

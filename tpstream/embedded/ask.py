"""Short questions to the parts over their own HTTP; no answer is an answer too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp

from tpstream.observability.announce import announced

PATIENCE = aiohttp.ClientTimeout(total=2.0)


async def status(url: str) -> int | None:
    """The HTTP status of a GET, None where nobody answers."""
    return (await _ask("GET", url, PATIENCE))[0]


async def report(url: str) -> tuple[int | None, dict[str, Any]]:
    """Status and JSON object of a GET; None and nothing where nobody answers."""
    code, body = await _ask("GET", url, PATIENCE)
    try:
        content = json.loads(body)
    except ValueError:
        content = {}
    return code, content if isinstance(content, dict) else {}


async def post(url: str, seconds: float) -> bool:
    """Whether a POST was answered with success within `seconds`."""
    code, _ = await _ask("POST", url, aiohttp.ClientTimeout(total=seconds))
    return code is not None and 200 <= code < 300


async def lag(url: str) -> float | None:
    """The number "lag" of a /health: records that a worker has still to work off."""
    value = (await report(url))[1].get("lag")
    return float(value) if isinstance(value, int | float) else None


def health_url(data_dir: Path, host: str, pid: int) -> str | None:
    """Where the process of that id has announced its /health."""
    for one in announced(data_dir):
        if one.pid == pid:
            return f"http://{host}:{one.port}/health"
    return None


async def _ask(method: str, url: str, patience: aiohttp.ClientTimeout) -> tuple[int | None, bytes]:
    try:
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.request(method, url, json={} if method == "POST" else None) as answer,
        ):
            return answer.status, await answer.read()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None, b""

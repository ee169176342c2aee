"""Connections to the store, and what their errors mean."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from tpstream.errors import TpstreamError
from tpstream.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")

AUTHENTICATION_FAILED = 516
_LOCAL = ("127.", "localhost", "::1")


def is_local(host: str) -> bool:
    """Whether a host is this machine, by its name."""
    return host.startswith(_LOCAL)


async def connect(settings: Settings) -> Any:
    """An async client of clickhouse-connect. Raises its errors, or OSError."""
    host, port = settings.store_address
    return await clickhouse_connect.get_async_client(
        host=host,
        port=port,
        username=settings.store_user,
        password=settings.store_password,
        database=settings.database,
        compress=not is_local(host),
        connect_timeout=5,
        send_receive_timeout=60,
        autogenerate_session_id=False,
        autogenerate_query_id=False,
    )


async def wait_for(settings: Settings, attempt: Callable[[Settings], Awaitable[T]]) -> T:
    """Try until the store is there, saying once that it is not and once that it is.

    Raises TpstreamError for what waiting cannot mend: a wrong user or password.
    """
    delay, waited = 0.1, False
    while True:
        try:
            result = await attempt(settings)
        except (ClickHouseError, OSError, TimeoutError) as error:
            if getattr(error, "code", None) == AUTHENTICATION_FAILED:
                raise TpstreamError(
                    f"store: user {settings.store_user!r} is refused; check TPSTREAM_STORE_USER and …_PASSWORD"
                ) from None
            if not waited:
                log.warning("store: waiting for %s:%d (%s)", *settings.store_address, reason(error))
            waited = True
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)
        else:
            if waited:
                log.warning("store: %s:%d is there", *settings.store_address)
            return result


def reason(error: BaseException) -> str:
    """One line that says why, without addresses and traces."""
    text = str(error) or type(error).__name__
    found = re.search(r"Code: \d+\. DB::Exception: (.*?)(?: \(version .*)?$", text, re.DOTALL)
    return " ".join((found[1] if found else text).split())[:300]

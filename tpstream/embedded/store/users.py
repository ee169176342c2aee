"""Who may ask, and within which limits (docs/sql.md)."""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from tpstream.embedded.store.faults import AUTHENTICATION_FAILED, Fault, fault
from tpstream.settings import Settings


@dataclass(frozen=True, slots=True)
class User:
    """A user of the store. `limits` are ClickHouse settings in force for every query of theirs."""

    name: str
    reads_only: bool
    limits: Mapping[str, str]


DEFAULT = User("default", False, {"max_result_bytes": "1000000000", "result_overflow_mode": "throw"})
BI = User(
    "bi",
    True,
    {
        "max_execution_time": "60",
        "max_memory_usage": "1500000000",
        "max_result_rows": "1000000",
        "max_result_bytes": "256000000",
        "result_overflow_mode": "throw",
        "max_rows_to_group_by": "20000000",
        "max_bytes_before_external_sort": "500000000",
        "max_bytes_before_external_group_by": "500000000",
        "max_subquery_depth": "50",
        "max_ast_elements": "20000",
    },
)


def authenticate(headers: Mapping[str, str], params: Mapping[str, str], peer: str, settings: Settings) -> User:
    """The user of a request, by basic auth, X-ClickHouse-User or URL parameters.

    Raises Fault 516 where the user is unknown, the password wrong, or no password is set
    and the client is not on this machine.
    """
    name, password = _credentials(headers, params)
    user = {"": DEFAULT, "default": DEFAULT, "bi": BI}.get(name)
    wanted = settings.store_password if user is DEFAULT else ""
    if user is None or password != wanted or (not wanted and not _is_local(peer)):
        raise _refused(name)
    return user


def _credentials(headers: Mapping[str, str], params: Mapping[str, str]) -> tuple[str, str]:
    if "X-ClickHouse-User" in headers:
        return headers["X-ClickHouse-User"], headers.get("X-ClickHouse-Key", "")
    scheme, _, data = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(data, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise _refused("") from None
        return name, password
    return params.get("user", ""), params.get("password", "")


def _refused(name: str) -> Fault:
    return fault(
        AUTHENTICATION_FAILED,
        f"{name or 'default'}: Authentication failed: password is incorrect, or there is no user with such name",
    )


def _is_local(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False

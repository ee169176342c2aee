"""What a request asks for, read from its URL, headers, form and body as ClickHouse reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tpstream.embedded.store.faults import READONLY, fault
from tpstream.embedded.store.users import User


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OF_HTTP = _words("""
    query database default_format user password query_id quota_key session_id session_timeout session_check
    compress decompress enable_http_compression http_zlib_compression_level wait_end_of_query buffer_size
    send_progress_in_http_headers http_headers_progress_interval_ms add_http_cors_header
    client_protocol_version cancel_http_readonly_queries_on_client_close role stacktrace close_session
    http_write_exception_in_output_format log_comment async_insert wait_for_async_insert
""")
"""Parameters of the interface itself, and those that mean nothing where every insert is synchronous."""

_READERS_MAY = _words("""
    output_format_json_quote_64bit_integers output_format_json_quote_denormals
    output_format_json_quote_decimals output_format_json_quote_64bit_floats
    output_format_json_named_tuples_as_objects date_time_output_format
    output_format_native_write_json_as_string
    output_format_native_use_flattened_dynamic_and_json_serialization output_format_decimal_trailing_zeros
    output_format_arrow_string_as_string output_format_parquet_string_as_string session_timezone
    join_use_nulls extremes low_cardinality_allow_in_native_format
    prefer_column_name_to_alias output_format_pretty_max_rows
""")
"""Settings that change how a result is written, not what it may cost."""

_FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z][A-Za-z0-9]*)\s*(?:SETTINGS\b[^;]*)?;?\s*$", re.IGNORECASE)

CONTENT_TYPES = {
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
}


@dataclass(frozen=True, slots=True)
class Context:
    """Everything about a request but its statement."""

    user: User
    database: str
    form: str
    """The format where the statement names none."""
    query_id: str
    settings: Mapping[str, str]
    params: Mapping[str, str]
    readonly: int


def context(user: User, given: Mapping[str, str], headers: Mapping[str, str], database: str, get: bool) -> Context:
    """Sort a request's parameters. Raises Fault 164 for a setting that the user may not change."""
    settings: dict[str, str] = {}
    params: dict[str, str] = {}
    for name, value in given.items():
        if name.startswith("param_"):
            params[name[6:]] = value
        elif name not in _OF_HTTP:
            settings[name] = _allowed(user, name, value)
    return Context(
        user,
        given.get("database") or headers.get("X-ClickHouse-Database") or database,
        given.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        given.get("query_id", ""),
        {**user.limits, **settings},
        params,
        # As on a server: a GET can be sent by any link, so it only reads (2: and may set settings).
        1 if user.reads_only else 2 if get else 0,
    )


def _allowed(user: User, name: str, value: str) -> str:
    if not user.reads_only or name in _READERS_MAY:
        return value
    limit = user.limits.get(name, "")
    if limit.isdigit() and value.isdigit() and 0 < int(value) <= int(limit):
        return value  # stricter than it must be
    if value == limit:
        return value
    raise fault(READONLY, f"Cannot modify '{name}' setting in readonly mode")


def format_of(statement: str, default: str) -> str:
    """The format that a statement's result has; only for the headers of the answer."""
    found = _FORMAT.search(statement)
    return found[1] if found else default

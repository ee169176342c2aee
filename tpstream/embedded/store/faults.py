"""ClickHouse's errors as the HTTP interface reports them: a code, a line, a status."""

from __future__ import annotations

import re

AUTHENTICATION_FAILED = 516
ACCESS_DENIED = 497
TOO_MANY_QUERIES = 202
READONLY = 164
NOT_IMPLEMENTED = 48
TOO_LARGE = 307
BAD_REQUEST = 36

_CODE = re.compile(r"Code: (\d+)\. ?(?:DB::Exception: )?")
_NAMES = {
    AUTHENTICATION_FAILED: "AUTHENTICATION_FAILED",
    ACCESS_DENIED: "ACCESS_DENIED",
    TOO_MANY_QUERIES: "TOO_MANY_SIMULTANEOUS_QUERIES",
    READONLY: "READONLY",
    NOT_IMPLEMENTED: "NOT_IMPLEMENTED",
    TOO_LARGE: "TOO_MANY_BYTES",
    BAD_REQUEST: "BAD_ARGUMENTS",
}
# As ClickHouse's HTTPHandler maps them; every other code is a 500.
_STATUS = {
    AUTHENTICATION_FAILED: 403,
    ACCESS_DENIED: 403,
    READONLY: 403,
    NOT_IMPLEMENTED: 501,
    TOO_LARGE: 413,
    TOO_MANY_QUERIES: 503,
    159: 408,
    **dict.fromkeys((60, 81, 82), 404),
    **dict.fromkeys((6, 26, 27, 36, 38, 41, 43, 44, 46, 47, 53, 57, 62, 63, 70, 115, 117, 456, 457), 400),
}


class Fault(Exception):
    """An error for the client, in ClickHouse's form. `str()` is one text, `code` ClickHouse's number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def status(self) -> int:
        """The HTTP status that ClickHouse answers with for this code."""
        return _STATUS.get(self.code, 500)


def fault(code: int, what: str) -> Fault:
    """A fault of the front itself, worded as ClickHouse words its own."""
    return Fault(code, f"Code: {code}. DB::Exception: {what}. ({_NAMES.get(code, 'UNKNOWN')})")


def from_engine(error: BaseException) -> Fault:
    """The fault in an exception of chdb, whose text is ClickHouse's; 1002 where it has no code."""
    text = str(error).strip()
    found = _CODE.search(text)
    if found is None:
        return Fault(1002, f"Code: 1002. DB::Exception: {text}. (UNKNOWN_EXCEPTION)")
    return Fault(int(found[1]), text[found.start() :])

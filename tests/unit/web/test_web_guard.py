"""The guard: our own pages and programs on this machine may call, foreign pages and foreign names may not."""

from __future__ import annotations

import json

import pytest

from tpstream.web.guard import own_names, refusal

OWN = own_names(6066, "127.0.0.1")
JSON = {"host": "127.0.0.1:6066", "content-type": "application/json"}


@pytest.mark.parametrize("host", ["127.0.0.1:6066", "localhost:6066", "LOCALHOST:6066", "[::1]:6066"])
def test_our_own_names_are_let_in(host: str) -> None:
    assert refusal("GET", {"host": host}, OWN) is None


@pytest.mark.parametrize(
    "host", ["", "evil.example:6066", "127.0.0.1", "127.0.0.1:6067", "127.0.0.1:6066.evil.example", "localhost:60660"]
)
def test_a_foreign_host_is_refused_also_for_reading(host: str) -> None:
    refused = refusal("GET", {"host": host}, OWN)
    assert refused is not None
    assert refused.status == 403
    assert "TPSTREAM_WEB_HOSTS" in json.loads(refused.body)["remedy"]


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:6066", "http://localhost:6066", "HTTP://LOCALHOST:6066"])
@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
def test_a_post_of_our_own_page_or_of_a_program_is_let_in(origin: str | None, kind: str) -> None:
    headers = {**JSON, "content-type": kind, **({"origin": origin} if origin else {})}
    assert refusal("POST", headers, OWN) is None


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://127.0.0.1:6067", "http://127.0.0.1", "file://", "127.0.0.1:6066",
     "http://127.0.0.1:6066.evil.example", "ftp://127.0.0.1:6066"],
)  # fmt: skip
def test_a_post_of_a_foreign_page_is_refused(origin: str) -> None:
    refused = refusal("POST", {**JSON, "origin": origin}, OWN)
    assert refused is not None
    assert refused.status == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_post_that_the_browser_calls_foreign_is_refused_without_an_origin_too(site: str) -> None:
    refused = refusal("POST", {**JSON, "sec-fetch-site": site}, OWN)
    assert refused is not None
    assert refused.status == 403


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_can_send_is_no_command(kind: str) -> None:
    refused = refusal("POST", {**JSON, "content-type": kind}, OWN)
    assert refused is not None
    assert refused.status == 415


def test_further_names_and_the_listening_address_are_our_own_but_a_wildcard_is_not() -> None:
    own = own_names(6066, "0.0.0.0", "worker-process:6066, console.example")
    assert {"worker-process:6066", "console.example", "localhost:6066"} <= own
    assert not any(name.startswith("0.0.0.0") for name in own)
    assert "10.0.0.5:6066" in own_names(6066, "10.0.0.5")
    assert "[fd00::5]:6066" in own_names(6066, "fd00::5")
    assert "localhost" in own_names(80)

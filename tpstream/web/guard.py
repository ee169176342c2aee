"""Who may call: no foreign page, by no foreign name.

The API has no tokens yet, so what protects it is the address that it listens on (loopback)
and this: a browser that is made to call us under a foreign name (DNS rebinding) sends that
name as Host; a foreign page that posts to us sends its own Origin, and cannot send JSON
without a preflight that nobody answers. Programs that are no browsers send no Origin.
"""

from __future__ import annotations

from collections.abc import Mapping

from tpstream.web.reply import JSON, Reply, error_reply

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE = frozenset({"GET", "HEAD"})


def own_names(port: int, host: str = "", further: str = "") -> frozenset[str]:
    """The values of Host that mean us: loopback and `host` with the port, and `further` (host:port,…)."""
    hosts = [*LOOPBACK]
    if host and host not in ("0.0.0.0", "::"):
        hosts.append(f"[{host}]" if ":" in host and not host.startswith("[") else host)
    names = {f"{name}:{port}" for name in hosts}
    if port == 80:
        names.update(hosts)
    names.update(name for part in further.split(",") if (name := part.strip()))
    return frozenset(name.lower() for name in names)


def refusal(method: str, headers: Mapping[str, str], own: frozenset[str]) -> Reply | None:
    """Why a request is not let in (403, 415), or None. Header names in lower case or a CIMultiDict."""
    host = headers.get("host", "").strip().lower()
    if host not in own:
        return error_reply(
            403, f"Host {host[:200]!r} is not this server", remedy=f"call it as {min(own)}, or set TPSTREAM_WEB_HOSTS"
        )
    if method in SAFE:
        return None
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin, own):
        return error_reply(403, f"Origin {origin[:200]!r} is foreign: other web pages may not send commands")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return error_reply(403, "the request comes from a foreign web page, which may not send commands")
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != JSON:
        return error_reply(415, f"Content-Type {kind[:100]!r} is not taken", remedy=f"send {JSON}")
    return None


def _is_own(origin: str, own: frozenset[str]) -> bool:
    scheme, separator, authority = origin.strip().lower().partition("://")
    return bool(separator) and scheme in ("http", "https") and authority in own

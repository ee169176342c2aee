"""The page's files: read once from the package, served with headers that let nothing else in."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from tpstream.web.reply import Call, Reply, Route

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS = (
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
"""On every answer."""

FILES = {
    "/": ("index.html", "text/html"),
    "/assets/console.css": ("console.css", "text/css"),
    "/assets/console.js": ("console.js", "text/javascript"),
    "/assets/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path → file in `static/` and its type. There is no other way to a file."""


def routes() -> dict[str, Route]:
    """A route for each file."""
    return {path: _serve(name, kind) for path, (name, kind) in FILES.items()}


def _serve(name: str, kind: str) -> Route:
    body = (files("tpstream.web") / "static" / name).read_bytes()
    tag = hashlib.sha256(body).hexdigest()[:16]
    reply = Reply(200, body, kind, (("ETag", f'"{tag}"'), ("Cache-Control", "no-cache")))

    async def serve(call: Call) -> Reply:
        return reply

    return serve

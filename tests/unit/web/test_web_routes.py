"""The table of routes: documented, and every file of the page is in the package."""

from __future__ import annotations

from pathlib import Path

from parts.console_server import Memory, Sent

from tpstream.observability.health import Health
from tpstream.web.assets import FILES
from tpstream.web.commands import Commands
from tpstream.web.routes import table

DOCUMENT = (Path(__file__).parents[3] / "docs/web.md").read_text()


def test_every_route_is_documented() -> None:
    for method, path in table(Memory(), Health(), Commands(Sent())):
        if path in FILES:
            continue
        short = path.replace(":[^/]+", "")
        last = "/" + short.rsplit("/", 1)[1]
        assert f"`{method} {short}" in DOCUMENT or f"`{last}`" in DOCUMENT, short


def test_the_page_asks_only_for_files_that_there_are() -> None:
    folder = Path(__file__).parents[3] / "tpstream/web/static"
    assert {name for name, _ in FILES.values()} == {path.name for path in folder.iterdir()}

"""The agents on the pages do what they say there, and pass the tests that stand beside them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tpstream
from tpstream.app import App
from tpstream.testing import FakeRecord, batch_of, sent

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/applications.md"
PAGES = [PAGE, ROOT / "docs/windows.md", ROOT / "docs/lane.md"]
README = ROOT / "README.md"


def snippets(page: Path, label: str = "(?: agent)?") -> list[str]:
    """The blocks of Python on a page, or those of a label."""
    return re.findall(rf"^```python{label}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


async def test_the_documented_agent_counts_and_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    monkeypatch.setattr(tpstream, "app", app)
    made: dict[str, Any] = {}
    exec(compile(snippets(PAGE)[0], str(PAGE), "exec"), made)
    records = [FakeRecord(b'{"celsius":%d}' % c, n, 5, b"oven") for n, c in enumerate((20, 101, 30))]
    for _ in range(2):  # a crash repeats it
        batch = batch_of(made["readings"], records, tables=[made["counts"]])
        await app.agents["count"].handler(batch)
    assert msgspec.to_builtins(made["counts"].at(0)["oven"]) == {"n": 3}
    assert sent(batch, made["hot"]) == [{"celsius": 101.0}]


def test_what_the_pages_declare_fits_into_one_application(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    monkeypatch.setattr(tpstream, "app", app)
    for page in PAGES:
        for code in snippets(page):
            exec(compile(code, str(page), "exec"), {})
    assert {"count", "watch", "count_hot"} <= set(app.agents)
    assert [table.name for table in app.agents["count_hot"].tables] == ["hot_readings"]
    assert {"temperature_mean_10s", "temperature_10s"} <= set(app.windows)


@pytest.mark.parametrize(
    ("page", "module"), [(README, "greenhouse/dew_point.py"), (ROOT / "docs/lane.md", "plant/hot.py")]
)
def test_an_agent_passes_the_test_beside_it_as_the_page_runs_it(page: Path, module: str, tmp_path: Path) -> None:
    (agent,), (test,) = snippets(page, " agent"), snippets(page, " test")
    file = tmp_path / module
    file.parent.mkdir()
    (file.parent / "__init__.py").touch()
    file.write_text(agent)
    (tmp_path / "test_it.py").write_text(test)
    command = re.search(r"`pytest( [^`]*)`", page.read_text())
    assert command is not None
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *command[1].split()], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    assert "1 passed" in said
    assert "Warning" not in said

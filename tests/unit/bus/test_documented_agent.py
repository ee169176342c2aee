"""The example in docs/applications.md does what it says there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tpstream
from tpstream.app import App
from tpstream.testing import FakeRecord, batch_of, sent

PAGE = Path(__file__).parents[3] / "docs/applications.md"


async def test_the_documented_agent_counts_and_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    monkeypatch.setattr(tpstream, "app", app)
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    made: dict[str, Any] = {}
    exec(compile(code[1], str(PAGE), "exec"), made)
    records = [FakeRecord(b'{"celsius":%d}' % c, n, 5, b"oven") for n, c in enumerate((20, 101, 30))]
    for _ in range(2):  # a crash repeats it
        batch = batch_of(made["readings"], records, tables=[made["counts"]])
        await app.agents["count"].handler(batch)
    assert msgspec.to_builtins(made["counts"].at(0)["oven"]) == {"n": 3}
    assert sent(batch, made["hot"]) == [{"celsius": 101.0}]

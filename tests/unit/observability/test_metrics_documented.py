"""The documentation names every metric, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tpstream.observability.metrics import REGISTRY

DOCUMENT = (Path(__file__).parents[3] / "docs/metrics.md").read_text()


def test_every_metric_is_documented_with_its_labels() -> None:
    documented = dict(re.findall(r"^\| `(tpstream_\w+)` \| ([^|]*?) *\|", DOCUMENT, re.MULTILINE))
    declared = {}
    for family in REGISTRY.collect():
        if family.name.startswith("tpstream_"):
            [collector] = {c for c, names in REGISTRY._collector_to_names.items() if family.name in names}
            name = family.name + ("_total" if family.type == "counter" else "")
            declared[name] = ", ".join(collector._labelnames)  # type: ignore[attr-defined]
    assert documented == declared


def test_names_follow_prometheus_rules_and_have_a_meaning() -> None:
    for family in REGISTRY.collect():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
        assert family.documentation

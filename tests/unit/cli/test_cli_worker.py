"""`tpstream worker`: which roles it takes."""

from __future__ import annotations

import pytest

from tpstream.cli import worker
from tpstream.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "names"),
    [("process", ["process"]), (" store , process,store", ["store", "process"])],
)
def test_roles_are_named_once_each(text: str, names: list[str]) -> None:
    assert worker._roles(text) == names


@pytest.mark.parametrize("text", ["", ",", "process,juggle"])
def test_a_worker_without_a_known_role_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--roles"):
        worker._roles(text)

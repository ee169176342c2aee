"""What `tpstream up` sets of its own accord depends on the broker that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpstream.bus.state import pin_partitions
from tpstream.cli.up import load
from tpstream.settings import Settings

PRODUCTION = Settings()


@pytest.mark.parametrize(
    ("kafka", "environ", "short", "bootstrap"),
    [
        (None, {}, True, "127.0.0.1:9092"),
        ("embedded", {"TPSTREAM_KAFKA": "k:1"}, True, "127.0.0.1:9092"),
        ("apache", {}, False, "127.0.0.1:9092"),
        ("apache", {"TPSTREAM_KAFKA": "k:1"}, False, "127.0.0.1:9092"),
        (None, {"TPSTREAM_KAFKA": "k:1"}, False, "k:1"),
    ],
)
def test_only_the_embedded_broker_gets_few_partitions_and_short_sessions(
    kafka: str | None, environ: dict[str, str], short: bool, bootstrap: str, tmp_path: Path
) -> None:
    settings = load(kafka, environ | {"TPSTREAM_DATA_DIR": str(tmp_path)})
    assert settings.bootstrap == bootstrap
    assert (settings.session_timeout < PRODUCTION.session_timeout) == short
    assert (settings.partitions < PRODUCTION.partitions) == short
    assert settings.register_on_first_sight


def test_what_the_user_set_stays() -> None:
    environ = {"TPSTREAM_PARTITIONS": "5", "TPSTREAM_SESSION_TIMEOUT": "7"}
    for kafka in (None, "embedded", "apache"):
        settings = load(kafka, environ)
        assert (settings.partitions, settings.session_timeout) == (5, 7.0)


@pytest.mark.parametrize("kafka", [None, "embedded", "apache"])
def test_the_other_broker_in_one_folder_gets_as_many_partitions(kafka: str | None, tmp_path: Path) -> None:
    environ = {"TPSTREAM_DATA_DIR": str(tmp_path)}
    pin_partitions(tmp_path / "state" / "group", 6)
    assert load(kafka, environ).partitions == 6
    assert load(kafka, environ | {"TPSTREAM_PARTITIONS": "3"}).partitions == 3, "the worker will say why not"

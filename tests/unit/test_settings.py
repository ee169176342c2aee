"""Settings: where they come from, and what a person reads when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tpstream.errors import ConfigurationError
from tpstream.settings import Settings


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "tpstream.toml"
    file.write_text("mqtt_port = 2000\nweb_port = 2001\n")
    settings = Settings.load({"TPSTREAM_WEB_PORT": "3001"}, file)
    assert (settings.mqtt_port, settings.web_port, settings.store_port) == (2000, 3001, 8123)


def test_overrides_win_over_all_and_none_is_no_override() -> None:
    settings = Settings.load({"TPSTREAM_HOST": "a"}, host="b", kafka=None)
    assert settings.host == "b"


def test_environ_is_a_full_round_trip() -> None:
    settings = Settings(data_dir=Path("/x"), register_on_first_sight=True, session_timeout=3.0)
    assert Settings.load(settings.environ()) == settings


@pytest.mark.parametrize(
    ("environ", "file", "says"),
    [
        ({"TPSTREAM_MQTT_PORT": "x"}, None, "TPSTREAM_MQTT_PORT='x' is not of type int"),
        ({"TPSTREAM_REGISTER_ON_FIRST_SIGHT": "maybe"}, None, "not of type bool"),
        ({}, "mqtt_prt = 1", "unknown setting 'mqtt_prt'"),
        ({}, "= 1", "not TOML"),
        ({"TPSTREAM_MQTT_PORT": "70000"}, None, "TPSTREAM_MQTT_PORT=70000 is out of range; .* 0 up to 65535"),
        ({"TPSTREAM_PARTITIONS": "0"}, None, "TPSTREAM_PARTITIONS=0 is out of range; .* above 0"),
        ({"TPSTREAM_STORE_MS": "-5"}, None, "TPSTREAM_STORE_MS=-5 is out of range; .* 0 or more"),
        ({"TPSTREAM_SESSION_TIMEOUT": "nan"}, None, "TPSTREAM_SESSION_TIMEOUT=nan is out of range"),
        ({"TPSTREAM_HANDLER_SECONDS": "inf"}, None, "TPSTREAM_HANDLER_SECONDS=inf is out of range"),
        ({"TPSTREAM_RECEIVE_MAXIMUM": "65536"}, None, "TPSTREAM_RECEIVE_MAXIMUM=65536 is out of range"),
    ],
)
def test_what_is_wrong_is_named(environ: dict[str, str], file: str | None, says: str, tmp_path: Path) -> None:
    path = None
    if file is not None:
        path = tmp_path / "tpstream.toml"
        path.write_text(file)
    with pytest.raises(ConfigurationError, match=says):
        Settings.load(environ, path)

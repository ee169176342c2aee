"""What `tpstream up` says at the end of its start, and what it runs for which settings."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tpstream.embedded.apache import Apache
from tpstream.embedded.parts import KAFKA, SIMULATOR, STOP_ORDER, STORE, WORKER, WORKER_STORE, parts, ports
from tpstream.embedded.summary import summary
from tpstream.settings import Settings

ALL = set(STOP_ORDER)


def test_everything_runs_and_a_kafka_or_store_of_ones_own_is_left_alone() -> None:
    assert set(parts(Settings(), simulate=True)) == ALL
    assert set(parts(Settings(), simulate=False)) == ALL - {SIMULATOR}
    assert set(parts(Settings(kafka="k:9092", store_host="s"), simulate=True)) == ALL - {KAFKA, STORE}


def test_workers_have_names_in_a_kafka_of_their_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(settings: Settings, **options: bool) -> list[str]:
        all_parts = parts(settings, simulate=False, **options)
        return [all_parts[name].environ["TPSTREAM_INSTANCE"] for name in (WORKER, WORKER_STORE)]

    monkeypatch.setattr(Apache, "check", lambda self: None)
    assert names(Settings(), real_kafka=True) == ["process-1", "store-1"]
    assert names(Settings(instance="mine"), real_kafka=True) == ["mine", "mine"]
    assert names(Settings()) == names(Settings(kafka="k:9092")) == ["", ""]


def test_only_ports_of_parts_that_run_are_checked() -> None:
    assert len(ports(Settings(), ALL)) == 5
    assert "TPSTREAM_KAFKA_PORT" not in ports(Settings(), ALL - {KAFKA})
    assert "TPSTREAM_MQTT_PORT" not in ports(Settings(bridge_way="broker"), ALL)


@pytest.mark.parametrize("publisher", ["mosquitto_pub", None])
def test_it_shows_a_publish_a_query_and_a_command_that_a_shell_understands(publisher: str | None) -> None:
    text = summary(Settings(mqtt_port=1999), ALL, program="tpstream", publisher=publisher)
    publish, query, command = (shlex.split(line) for line in text.splitlines() if line.startswith("    "))
    assert any("1999" in word for word in publish)
    if publisher is None:
        compile(publish[2], "publish", "exec")
        assert '{"temperature":21.5}' in publish[2]
    assert query[:2] == ["tpstream", "sql"]
    assert command == ["tpstream", "send", "greenhouse-1", "fan", '{"on":true}']


def test_without_devices_it_shows_how_to_have_some_instead_of_a_command_that_nobody_answers() -> None:
    text = summary(Settings(), ALL - {SIMULATOR}, program="tpstream", publisher="mosquitto_pub")
    assert "tpstream simulate" in text
    assert " send " not in text


def test_it_says_what_the_broker_may_lose_only_where_it_is_ours() -> None:
    def said(names: set[str]) -> bool:
        return "memory" in summary(Settings(data_dir=Path("var")), names, program="tpstream", publisher=None)

    assert said(ALL)
    assert not said(ALL - {KAFKA})


def test_of_a_broker_on_disk_it_says_where_it_keeps_its_records() -> None:
    text = summary(Settings(data_dir=Path("var")), ALL, program="tpstream", publisher=None, forgets=False)
    assert "memory" not in text
    assert "keeps its records in var/kafka." in text

"""Apache Kafka as a part: the compose stack's settings, and errors that say what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tpstream.embedded import apache
from tpstream.embedded.apache import CHECKOUT, HEAP, PROPERTIES, Apache
from tpstream.errors import ConfigurationError


def table(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


@pytest.fixture
def libs(tmp_path: Path) -> Path:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.4.0.jar").touch()
    return tmp_path / "libs"


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that JAVA_HOME names, to be written by the test."""
    program = tmp_path / "jdk" / "bin" / "java"
    program.parent.mkdir(parents=True)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    return program


def write(program: Path, version: str) -> None:
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2024-01-16' >&2\n")
    program.chmod(0o755)


def test_it_differs_from_compose_in_addresses_folders_and_its_session_with_itself_only() -> None:
    ours = table(Apache(Path("/data/kafka"), "127.0.0.1", 9092).properties(20_001))
    compose = table(PROPERTIES.read_text())
    differ = {name for name in ours if ours[name] != compose.get(name)}
    assert set(compose) <= set(ours)
    assert differ == {
        "controller.quorum.voters",
        "listeners",
        "advertised.listeners",
        "inter.broker.listener.name",
        "log.dirs",
        "broker.session.timeout.ms",
        "broker.heartbeat.interval.ms",
    }
    assert ours["log.dirs"] == "/data/kafka/data"
    assert ours["listeners"] == "HOST://127.0.0.1:9092,CONTROLLER://127.0.0.1:20001"


def test_what_listens_on_every_address_is_reached_on_this_machine() -> None:
    ours = table(Apache(Path("kafka"), "0.0.0.0", 9092).properties(20_001))
    assert ours["listeners"].startswith("HOST://0.0.0.0:9092,CONTROLLER://127.0.0.1:")
    assert ours["advertised.listeners"] == "HOST://127.0.0.1:9092"


def test_the_jars_and_the_image_are_of_one_version_and_the_heap_is_the_same() -> None:
    pom = (CHECKOUT / "deploy/kafka/pom.xml").read_text()
    found = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([^<]+)<", pom)
    assert found is not None
    service = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]["kafka"]
    assert service["image"] == f"apache/kafka:{found[1]}"
    assert service["environment"]["KAFKA_HEAP_OPTS"] == HEAP


def test_without_jars_it_says_how_to_bring_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"jars are not in {tmp_path}; run `make kafka` in "):
        Apache(tmp_path, "127.0.0.1", 1, tmp_path).check()


def test_without_java_it_says_so(tmp_path: Path, libs: Path, fake_java: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs Java, and there is none; run `make kafka`"):
        Apache(tmp_path, "127.0.0.1", 1, libs).check()


@pytest.mark.parametrize(("version", "release"), [("11.0.22", 11), ("1.8.0_402", 8)])
def test_a_java_that_is_too_old_is_named(
    tmp_path: Path, libs: Path, fake_java: Path, version: str, release: int
) -> None:
    write(fake_java, version)
    with pytest.raises(ConfigurationError, match=rf"Java 17 or newer, and {fake_java} is {release}; "):
        Apache(tmp_path, "127.0.0.1", 1, libs).check()


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_newer_ones_will_do(tmp_path: Path, libs: Path, fake_java: Path, version: str) -> None:
    write(fake_java, version)
    Apache(tmp_path, "127.0.0.1", 1, libs).check()


def test_its_process_ends_with_one_line_and_the_code_of_a_wrong_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert apache.main([str(tmp_path), "127.0.0.1", "1", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1

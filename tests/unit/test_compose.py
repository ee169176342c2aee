"""The compose stack: what it mounts exists, it listens on loopback only, and its metrics are ones that we have."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from connectors.mqtt_bridge.counts import Counts
from connectors.mqtt_bridge.metrics import Metrics
from tpstream.cli.root import root
from tpstream.observability.metrics import REGISTRY
from tpstream.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("bridge", "worker-process", "worker-store", "apply")
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboards/tpstream.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for text in service.get("volumes", ()):
        source, target, *mode = text.split(":")
        yield source, target, mode[0] if mode else ""


def test_all_parts_are_there() -> None:
    servers = {"mosquitto", "kafka", "clickhouse", "prometheus", "grafana"}
    assert set(SERVICES) == servers | set(OURS)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_bounded_and_published_on_loopback_only(name: str) -> None:
    service = SERVICES[name]
    image, _, tag = service["image"].partition(":")
    assert image
    assert tag not in ("", "latest")
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
    if service["restart"] != "no":
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["logging"]["options"]["max-size"]
    assert not service.get("privileged")
    for other, condition in service.get("depends_on", {}).items():
        assert condition == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_exists_and_is_read_only_and_volumes_are_declared(name: str) -> None:
    for source, _, mode in mounts(SERVICES[name]):
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mode == "ro", source
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_is_used() -> None:
    used = {source for service in SERVICES.values() for source, _, _ in mounts(service)}
    assert set(COMPOSE["volumes"]) == {source for source in used if not source.startswith(".")}


@pytest.mark.parametrize("name", OURS)
def test_our_settings_and_commands_exist(name: str) -> None:
    known = {PREFIX + field.name.upper() for field in fields(Settings)} | {"TPSTREAM_LOG"}
    assert set(SERVICES[name]["environment"]) <= known
    defaults = {
        key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in SERVICES[name]["environment"].items()
    }
    settings = Settings.load(defaults)
    assert settings.bootstrap == "kafka:9092"
    assert settings.store_address == ("clickhouse", 8123)
    command = root.get_command(None, SERVICES[name]["command"][0])  # type: ignore[arg-type]
    assert command is not None


def test_the_bridge_logs_in_as_the_broker_knows_it() -> None:
    default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", SERVICES["bridge"]["environment"]["TPSTREAM_BROKER_URL"])
    assert default == "mqtt://tpstream-bridge:tpstream@mosquitto:1883"
    assert "user tpstream-bridge" in (ROOT / "deploy/mosquitto/acl").read_text()
    assert "tpstream-bridge" in (ROOT / "deploy/mosquitto/start.sh").read_text()


def test_health_is_asked_on_the_port_that_the_process_serves() -> None:
    settings = Settings()
    ports = {
        "bridge": settings.bridge_web_port,
        "worker-process": settings.web_port,
        "worker-store": settings.worker_web_port,
    }
    for name, port in ports.items():
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "/opt/healthy.py", str(port)]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    targets = {target for config in scraped["static_configs"] for target in config["targets"]}
    assert targets == {f"{name}:{port}" for name, port in ports.items()}
    assert SERVICES["worker-process"]["environment"]["TPSTREAM_WEB_HOSTS"] == f"worker-process:{settings.web_port}"
    assert SERVICES["worker-process"]["environment"]["TPSTREAM_BRIDGE_WEB_HOST"] == "bridge"


def test_the_broker_drops_nothing_and_lets_nobody_in_without_a_login() -> None:
    lines = (ROOT / "deploy/mosquitto/mosquitto.conf").read_text().splitlines()
    config = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    assert int(config["max_queued_messages"]) >= 10**9  # not 0: see the file
    assert config["max_queued_bytes"] == "0"
    assert (config["persistence"], config["allow_anonymous"]) == ("true", "false")
    targets = {target for _, target, _ in mounts(SERVICES["mosquitto"])}
    assert {"/mosquitto/config/acl", "/mosquitto/config/mosquitto.conf", "/mosquitto/config/start.sh"} <= targets


def test_kafka_is_reached_from_containers_and_from_this_machine() -> None:
    text = (ROOT / "deploy/kafka/server.properties").read_text()
    config = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert "INTERNAL://kafka:9092" in config["advertised.listeners"]
    assert "HOST://127.0.0.1:9092" in config["advertised.listeners"]
    assert SERVICES["kafka"]["ports"] == ["127.0.0.1:9092:19092"]
    assert "HOST://:19092" in config["listeners"]
    assert config["auto.create.topics.enable"] == "false"


def test_clickhouse_users_may_what_protocol_says() -> None:
    for path in (ROOT / "deploy/clickhouse").rglob("*.xml"):
        ElementTree.parse(path)
    users = ElementTree.parse(ROOT / "deploy/clickhouse/users.d/tpstream.xml").getroot()
    grants = [query.text or "" for query in users.findall("users/bi/grants/query")]
    assert grants
    assert all(grant.startswith(("GRANT SELECT", "GRANT SHOW")) for grant in grants)
    assert users.findtext("profiles/bi/readonly") == "2"
    for user in users.findall("users/*/password"):
        assert user.get("from_env") in SERVICES["clickhouse"]["environment"]
    assert users.find("users/default").get("remove") == "remove"  # type: ignore[union-attr]


def metric_names() -> set[str]:
    bridge = Metrics(Counts(), dict.fromkeys(_bridge_gauges(), ("", lambda: 0.0)))
    families: list[Metric] = [*REGISTRY.collect(), *bridge.collect()]
    names = set()
    for family in families:
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        names |= {family.name + ending for ending in endings}
    return names | {"up"}


def _bridge_gauges() -> list[str]:
    text = (ROOT / "connectors/mqtt_bridge/bridge.py").read_text()
    return re.findall(r'"(\w+)": \(', text)


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for group in RULES["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_dashboard_and_rules_use_metrics_that_there_are(expression: str) -> None:
    used = set(re.findall(r"\b(?:tpstream|process)_\w+", re.sub(r'"[^"]*"', "", expression)))
    assert used or "up{" in expression
    assert used <= metric_names()


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ][0]
    assert {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"} == {source["uid"]}
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/tpstream.yml").read_text())["providers"][
        0
    ]
    targets = {target: source for source, target, _ in mounts(SERVICES["grafana"])}
    assert targets[provider["options"]["path"]] == "./deploy/grafana/dashboards"


def test_the_image_is_built_of_what_there_is_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    assert re.search(r"^USER tpstream$", text, re.MULTILINE)
    python = tomllib.loads((ROOT / "ruff.toml").read_text())["target-version"].removeprefix("py3")
    assert text.count(f"FROM python:3.{python}-slim") == 2


def test_the_example_of_env_names_what_compose_reads() -> None:
    read = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    lines = (ROOT / "deploy/example.env").read_text().splitlines()
    assert {line.split("=")[0] for line in lines if line and not line.startswith("#")} == read

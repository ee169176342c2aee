"""The README's snippets do what the README says, and are what the greenhouse example has."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

import tpstream
from tpstream import App, ConfigurationError
from tpstream.devices import profiles
from tpstream.lua.pool import Call, Result, Scripts
from tpstream.rules import definition as rules
from tpstream.settings import Settings
from tpstream.simulator.greenhouse import Reading
from tpstream.simulator.sensors import BinarySensor
from tpstream.windows.definition import Window

ROOT = Path(__file__).parents[2]
GREENHOUSE = ROOT / "examples" / "greenhouse"
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
README = (ROOT / "README.md").read_text()
SNIPPETS = {label: text for _, label, text in BLOCK.findall(README) if label}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> App:
    """An app of this test's own behind the name that snippets import."""
    own = App()
    monkeypatch.setattr(tpstream, "app", own)
    return own


def run(label: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(SNIPPETS[label], f"README.md, {label}", "exec"), names)
    return names


def test_every_snippet_is_there() -> None:
    assert set(SNIPPETS) == {"manifest", "decoder", "profile", "window", "rule", "command", "agent", "test"}


@pytest.mark.parametrize("label", ["decoder", "window", "rule", "command", "agent"])
def test_each_is_ten_lines_or_fewer(label: str) -> None:
    lines = [line for line in SNIPPETS[label].splitlines() if line.strip()]
    own = [line for line in lines if not line.startswith(("import ", "from "))]
    assert len(own) <= 10


@pytest.mark.parametrize(
    ("label", "file"),
    [
        ("manifest", "app.toml"),
        ("decoder", "scripts/six-bytes.lua"),
        ("command", "scripts/fan-bytes.lua"),
        ("profile", "profiles/binary-sensor.yaml"),
        ("rule", "rules/too-hot.yaml"),
        ("window", "greenhouse/windows.py"),
        ("agent", "greenhouse/dew_point.py"),
    ],
)
def test_the_greenhouse_has_the_same(label: str, file: str) -> None:
    assert SNIPPETS[label].strip() in (GREENHOUSE / file).read_text()


def test_the_folder_is_drawn_as_it_is() -> None:
    drawing = re.search(r"^```\ngreenhouse/\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert drawing is not None
    there = {path.name for path in GREENHOUSE.rglob("*.*") if path.is_file() and path.suffix != ".pyc"}
    assert set(re.findall(r"[\w-]+\.(?:toml|yaml|lua|py)\b", drawing[1])) == there - {"README.md"}


PAGES = [ROOT / "README.md", GREENHOUSE / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_is_named_exists(page: Path) -> None:
    named = set(re.findall(r"TPSTREAM_([A-Z][A-Z_]*[A-Z])\b(?!_|…|\*)", page.read_text()))
    assert {name.lower() for name in named} - {"debug", "log"} <= {field.name for field in fields(Settings)}


async def test_the_decoder_reads_what_the_simulated_sensor_sends() -> None:
    payload = BinarySensor().say(Reading(temperature=-5.25, humidity=61.5, battery=3.712, fan=False), 0)
    assert msgspec.json.decode(await lua("decoder", "decode", payload)) == {
        "temperature": -5.25,
        "humidity": 61.5,
        "battery": 3.712,
    }


@pytest.mark.parametrize("on", [True, False])
async def test_the_command_is_what_the_simulated_sensor_understands(on: bool) -> None:
    payload = msgspec.json.encode({"method": "fan", "params": {"on": on}})
    assert BinarySensor().understand(await lua("command", "encode", payload)).on is on


@pytest.mark.parametrize("payload", [b"", b"12345", b"1234567"])
async def test_the_decoder_refuses_what_is_not_six_bytes(payload: bytes) -> None:
    with pytest.raises(AssertionError, match=f"expected 6 bytes, got {len(payload)}"):
        await lua("decoder", "decode", payload)


def test_the_profile_claims_the_binary_sensors_and_names_the_scripts() -> None:
    profile = profiles.parse(SNIPPETS["profile"], "README.md")
    assert profile.devices == ("greenhouse-bin-*",)
    assert {use.file for use in profile.scripts.values()} == {path.name for path in (GREENHOUSE / "scripts").iterdir()}


def test_the_window_is_declared(declared: App) -> None:
    run("window")
    assert declared.windows == {
        "temperature_mean_10s": Window("temperature_mean_10s", "temperature", 10_000, "mean", 2_000, 30_000, 10_000)
    }


def test_the_rule_is_one_on_that_window(declared: App) -> None:
    run("window")
    rule = rules.parse(SNIPPETS["rule"], "README.md")
    assert rule.window in declared.windows
    assert (rule.raise_when.above, rule.raise_for, rule.clear_when.below) == (30.0, 2, 28.0)
    assert rule.on_raise is not None
    assert rule.on_clear is not None
    assert (rule.on_raise.command, msgspec.json.decode(rule.on_raise.params)) == ("fan", {"on": True})
    assert (rule.on_clear.command, msgspec.json.decode(rule.on_clear.params)) == ("fan", {"on": False})


async def test_the_agent_makes_nothing_of_what_it_made(declared: App) -> None:
    from tpstream import topics
    from tpstream.messages import Point, Telemetry
    from tpstream.testing import FakeRecord, batch_of, make_batch

    agent = run("agent")["dew_point"]
    assert list(declared.agents) == ["dew_point"]
    points = (Point("temperature", 0, 25.0), Point("humidity", 0, 50.0))
    first = make_batch(topics.uplink_telemetry, [Telemetry("d", points)])
    await agent(first)
    (out,) = first.outgoing
    second = batch_of(topics.uplink_telemetry, [FakeRecord(out.value, 1, out.timestamp, out.key, out.headers)])
    await agent(second)
    assert second.outgoing == []
    position, origin = second.derived(second.records[0]).position, second.derived(second.records[0]).origin
    source = first.position(first.records[0])
    assert origin == source
    assert (position.partition, position.offset) != (source.partition, source.offset)
    assert position.offset == source.offset


def test_a_rule_with_a_slip_is_refused_with_its_place() -> None:
    text = SNIPPETS["rule"].replace("above: 30", "abvoe: 30")
    with pytest.raises(ConfigurationError, match=r"too-hot.yaml:3: field raise.abvoe: is unknown"):
        rules.parse(text, "too-hot.yaml")


async def lua(label: str, entry: Literal["decode", "encode"], payload: bytes) -> bytes:
    """What a script returns, run as a worker runs it: in a script process, within its budgets."""
    scripts = Scripts(Settings(script_cpu_ms=2_000, script_wall_ms=10_000))  # the machine may be busy
    await scripts.start()
    try:
        (outcome,) = await scripts.run([Call(f"{label}@1", SNIPPETS[label], entry, payload, "devices/d/telemetry")])
    finally:
        await scripts.stop()
    assert isinstance(outcome, Result), outcome
    return outcome.value

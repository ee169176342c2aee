"""The schema check: the real schemas pass, and each way to break one is caught, with file and field."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCHEMAS = Path(__file__).parents[3] / "schemas"
sys.path.insert(0, str(SCHEMAS))

import agreement  # noqa: E402 - the check is a script beside the schemas, not a package
import check  # noqa: E402
import compatibility  # noqa: E402

Schema = dict[str, Any]
TELEMETRY = "tp.uplink.telemetry.v1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the schemas, released as they are."""
    copy = tmp_path / "schemas"
    shutil.copytree(SCHEMAS, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__", "released"))
    assert check.check(copy, release=True) == 0
    return copy


def change(folder: Path, name: str, how: Callable[[Schema], object]) -> list[str]:
    file = folder / f"{name}.avsc"
    schema = json.loads(file.read_text())
    how(schema)
    file.write_text(json.dumps(schema))
    return list(check.problems(folder, name, check.structs()[name]))


def field(schema: Schema, name: str) -> Schema:
    return next(f for f in schema["fields"] if f["name"] == name)


def point(schema: Schema, name: str) -> Schema:
    return field(field(schema, "points")["type"]["items"], name)


def test_the_schemas_as_they_are() -> None:
    done = subprocess.run([sys.executable, SCHEMAS / "check.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(check.structs())


@pytest.mark.parametrize(
    ("name", "how", "where"),
    [
        ("tp.windows.v1", lambda s: s["fields"].remove(field(s, "count")), "field count: is in the struct"),
        ("tp.windows.v1", lambda s: field(s, "count").update(type="double"), "field count: is long in the struct"),
        ("tp.windows.v1", lambda s: field(s, "count").update(default=0), "field count: is required"),
        ("tp.windows.v1", lambda s: field(s, "count").update(name="number"), "field number: is in the schema"),
        ("tp.windows.v1", lambda s: field(s, "value").update(type="double"), "field value: is a union"),
        ("tp.windows.v1", lambda s: field(s, "count").pop("doc"), "field count: has no doc"),
        ("tp.windows.v1", lambda s: s.update(name="Window"), "field (top): is a record named WindowResult"),
        ("tp.alarms.v1", lambda s: field(s, "details").pop("default"), "field details: is optional"),
        ("tp.alarms.v1", lambda s: field(s, "details").update(default="{}"), "field details: default is ''"),
        ("tp.alarms.v1", lambda s: field(s, "state")["type"]["symbols"].pop(), "field state: is an enum"),
        (
            "tp.config.releases.v1",
            lambda s: field(s, "rules")["type"].update(values="long"),
            "field rules{}: is string",
        ),
        ("tp.dlq.v1", lambda s: field(s, "payload").update(type="string"), "field payload: is bytes"),
        (TELEMETRY, lambda s: point(s, "ts").update(type="int"), "field points[].ts: is long"),
        (TELEMETRY, lambda s: point(s, "kind")["type"]["symbols"].append("blob"), "field points[].kind: is an enum"),
    ],
)
def test_a_schema_that_does_not_fit_its_struct(folder: Path, name: str, how: Any, where: str) -> None:
    lines = change(folder, name, how)
    assert any(line.startswith(f"{folder / name}.avsc: {where}") for line in lines), lines
    assert check.check(folder) == 1


@pytest.mark.parametrize(
    ("how", "where"),
    [
        (lambda s: s["fields"].append({"name": "unit", "type": "string"}), "field unit: is new and has no default"),
        (lambda s: field(s, "device").update(type="long"), 'field device: was "string", is "long"'),
        (lambda s: point(s, "number").update(type=["null", "long"]), "field points.number: was"),
        (lambda s: point(s, "kind")["type"]["symbols"].remove("json"), "field points.kind: was"),
        (lambda s: field(s, "device").update(type="bytes"), "field device: was string, is bytes"),
        (lambda s: point(s, "text").update(type="bytes"), "field points.text: was string, is bytes"),
        (lambda s: point(s, "ts").update(name="time"), "field points.time: is new and has no default"),
    ],
)
def test_a_break_of_what_was_released(folder: Path, how: Any, where: str) -> None:
    released = json.loads((folder / "released" / f"{TELEMETRY}.avsc").read_text())
    schema = json.loads(json.dumps(released))
    how(schema)
    lines = list(compatibility.breaks(schema, released))
    assert any(line.startswith(where) for line in lines), lines
    assert any(where in line and f"{TELEMETRY}.avsc" in line for line in change(folder, TELEMETRY, how))


@pytest.mark.parametrize(
    "how",
    [
        lambda s: s["fields"].append({"name": "unit", "type": "string", "default": ""}),
        lambda s: point(s, "kind")["type"]["symbols"].append("blob"),
        lambda s: point(s, "ts").update(type="double"),
        lambda s: s["fields"].remove(field(s, "device")),
        lambda s: s.update(doc="Other words."),
    ],
)
def test_what_may_change_after_a_release(folder: Path, how: Any) -> None:
    released = json.loads((folder / "released" / f"{TELEMETRY}.avsc").read_text())
    schema = json.loads(json.dumps(released))
    how(schema)
    assert list(compatibility.breaks(schema, released)) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (None, "is missing"),
        ("{", "not JSON"),
        ("[]", "not an Avro schema"),
        ('{"type": "record", "name": "Alarm", "fields": [{"name": "id", "type": "txt"}]}', "not an Avro schema"),
    ],
)
def test_a_file_that_is_no_schema(folder: Path, text: str | None, where: str) -> None:
    file = folder / "tp.alarms.v1.avsc"
    file.unlink()
    if text is not None:
        file.write_text(text)
    (line,) = check.problems(folder, "tp.alarms.v1", check.structs()["tp.alarms.v1"])
    assert line.startswith(f"{file}: {where}")


def test_a_schema_of_no_topic(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "tp.alarms.v1.avsc", folder / "tp.alarm.v1.avsc")
    assert check.check(folder) == 1
    assert "tp.alarm.v1.avsc: no topic has such records" in capsys.readouterr().out


def test_nothing_is_released_while_something_is_wrong(folder: Path) -> None:
    before = (folder / "released" / "tp.alarms.v1.avsc").read_text()
    change(folder, "tp.alarms.v1", lambda s: field(s, "id").update(type="long"))
    assert check.check(folder, release=True) == 1
    assert (folder / "released" / "tp.alarms.v1.avsc").read_text() == before


def test_real_records_are_a_second_look(folder: Path) -> None:
    """Where the comparison of types overlooked something, a record from JSON would not fit."""
    schema = json.loads((folder / "tp.windows.v1.avsc").read_text())
    field(schema, "count")["type"] = "string"
    (line,) = agreement._records(check.structs()["tp.windows.v1"], schema)
    assert line.startswith("field tpstream.WindowResult.count: a record from JSON does not fit")

"""An application folder: read as a whole, or refused with everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tpstream.devices.application import load
from tpstream.devices.manifest import locate, read_manifest
from tpstream.errors import ConfigurationError
from tpstream.settings import Settings

RULE = "rule: hot\nwindow: mean_10s\nraise: {above: 30}\nclear: {below: 28}\n"
WINDOW = 'from tpstream import app\n\napp.window("mean_10s", key="t", size="10s")\n'

Folder = Callable[[dict[str, str | bytes]], Path]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes an application of the files given; app.toml and a window are there unless replaced."""

    def make(files: dict[str, str | bytes]) -> Path:
        for name, content in {
            "app.toml": 'name = "demo"\npackage = "demo_app"\n',
            "demo_app/__init__.py": WINDOW,
            **files,
        }.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return make


def problems(directory: Path, settings: Settings | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(directory, settings or Settings())
    return [line.removeprefix(f"{directory}/") for line in str(caught.value).splitlines()]


def test_a_whole_application_is_read(folder: Folder) -> None:
    directory = folder(
        {
            "profiles/soil.yaml": "name: soil\nscripts: {A: soil.lua}\n",
            "scripts/soil.lua": "function decode(msg) return {} end\n",
            "rules/hot.yaml": RULE,
            "rules/.hidden.yaml": "not: read",
            "scripts/README.md": "not read",
        }
    )
    application = load(directory, Settings())
    assert (application.name, application.package.name) == ("demo", "demo_app")
    assert application.package.identity == f"demo@{application.package.version}"
    assert application.declared.windows == ("mean_10s",)
    assert application.profiles["soil"].file == "profiles/soil.yaml"
    assert application.rules["hot"].text == RULE
    release = application.release(7)
    assert release.scripts == {"soil.lua": application.scripts["soil.lua"].version}
    assert release.version == load(directory, Settings()).release(8).version


def test_any_change_of_content_is_another_version(folder: Folder) -> None:
    directory = folder({"rules/hot.yaml": RULE})
    before = load(directory, Settings())
    folder({"rules/hot.yaml": RULE.replace("30", "31")})
    after = load(directory, Settings())
    assert before.release(1).version != after.release(1).version
    assert before.package.version == after.package.version
    folder({"demo_app/more.py": "X = 1\n"})
    assert load(directory, Settings()).package.version != after.package.version


def test_everything_that_is_wrong_is_said_at_once(folder: Folder) -> None:
    directory = folder(
        {
            "profiles/a.yaml": "name: a\nscripts:\n  A: gone.lua\n",
            "profiles/b.yaml": "name: b\ncolour: red\n",
            "profiles/c.yml": "name: c\n",
            "profiles/d.yaml": b"name: \xff",
            "profiles/e.yaml": "name: a\n",
            "scripts/bad.lua": "function decode(msg)\n  return {\nend\n",
            "rules/cold.yaml": RULE.replace("mean_10s", "mean_1h"),
            "rules/odd.yaml": "rule: odd\n",
        }
    )
    found = problems(directory)
    assert any(line.startswith("profiles/a.yaml:3: field scripts.A: names gone.lua") for line in found)
    assert any(line.startswith("profiles/b.yaml:2: field colour: is unknown") for line in found)
    assert any(line.startswith("profiles/c.yml: would be passed over; name it c.yaml") for line in found)
    assert any(line.startswith("profiles/d.yaml: cannot be read as UTF-8") for line in found)
    assert any(line.startswith("profiles/e.yaml: 'a' is the name of") for line in found)
    assert any("bad.lua:3" in line for line in found)
    assert any(line.startswith("rules/cold.yaml:2: field window: names 'mean_1h'") for line in found)
    assert any(line.startswith("rules/odd.yaml:1: field window: is missing") for line in found)
    assert len(found) == 8


def test_a_script_above_the_bound_is_refused(folder: Folder) -> None:
    directory = folder({"scripts/long.lua": "-- " + "x" * 100})
    [line] = problems(directory, Settings(script_max_chars=50))
    assert line.startswith("scripts/long.lua: has 103 characters, above TPSTREAM_SCRIPT_MAX_CHARS=50")


def test_a_rule_needs_a_window_even_without_a_package(folder: Folder) -> None:
    [line] = problems(folder({"app.toml": 'name = "demo"', "rules/hot.yaml": RULE}))
    assert line.startswith("rules/hot.yaml:2: field window")
    assert "app.toml names no Python package" in line


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("import nix_da\n", "demo_app/__init__.py:1: ModuleNotFoundError: No module named 'nix_da'"),
        ("x = 1\ny = (\n", "demo_app/__init__.py:2: SyntaxError: '(' was never closed"),
        ("from demo_app import broken\n", "demo_app/broken.py:2: ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "demo_app/__init__.py:2: SystemExit: 3"),
        (
            'from tpstream import app\napp.window("w", key="t", size="10s", aggregate="median")\n',
            "demo_app/__init__.py:2: window 'w': aggregate 'median' is none of",
        ),
        ("import os\nos._exit(4)\n", ": importing the package ended the process with code 4"),
    ],
)
def test_a_package_that_fails_is_refused_with_file_and_line(folder: Folder, source: str, complaint: str) -> None:
    directory = folder({"demo_app/__init__.py": source, "demo_app/broken.py": "\n1 / 0\n", "rules/hot.yaml": RULE})
    [line] = problems(directory)  # what the rules miss cannot be told then
    assert line.removeprefix(str(directory)).startswith(complaint)


def test_a_module_that_nobody_imports_is_imported_all_the_same(folder: Folder) -> None:
    directory = folder(
        {"demo_app/__init__.py": "print('hello')\n", "demo_app/deep/__init__.py": "", "demo_app/deep/w.py": WINDOW}
    )
    assert load(directory, Settings()).declared.windows == ("mean_10s",)


def test_a_package_of_somebody_else_is_not_taken_for_ours(folder: Folder) -> None:
    directory = folder({"app.toml": 'name = "demo"\npackage = "json"\n'})
    [line] = problems(directory)
    assert "another package of that name" in line or "there is no package 'json'" in line


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "app.toml:1: field name: is missing"),
        ("name = 3", "app.toml:1: field name: must be a text"),
        ('\nname = "Big Name"', "app.toml:2: field name: is 'Big Name'"),
        ('name = "a"\npakage = "b"', "app.toml:2: field pakage: is unknown"),
        ('name = "a"\npackage = "b.c"', "app.toml:2: field package: is 'b.c'"),
        ('name = "a"\nx', "app.toml:2: not TOML"),
    ],
)
def test_the_manifest_is_checked(folder: Folder, text: str, complaint: str) -> None:
    directory = folder({"app.toml": text})
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(directory)
    assert str(caught.value).removeprefix(f"{directory}/").startswith(complaint)


def test_a_folder_without_a_manifest_and_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no app.toml"):
        read_manifest(tmp_path)
    with pytest.raises(ConfigurationError, match=r"is no folder"):
        read_manifest(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match=r"neither a folder nor an installed entry point"):
        locate("gone")


def test_a_pipe_is_not_waited_for(folder: Folder) -> None:
    directory = folder({"scripts/README.md": ""})
    os.mkfifo(directory / "scripts" / "pipe.lua")
    assert problems(directory) == ["scripts/pipe.lua: is no file; move it away"]

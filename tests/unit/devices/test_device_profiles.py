"""A profile: what may stand in its file, and which devices it claims."""

from __future__ import annotations

import pytest

from tpstream.devices.profiles import (
    Matcher,
    Profile,
    ScriptRef,
    parse,
    profile_of_definition,
)
from tpstream.errors import ConfigurationError

SOIL = """\
name: soil
devices: ["greenhouse-bin-*", 4711]
scripts:
  A: soil.lua
  E: fan.lua
"""


def test_a_profile_is_read_with_all_its_fields() -> None:
    profile = parse(SOIL, "profiles/soil.yaml")
    assert profile.name == "soil"
    assert profile.devices == ("greenhouse-bin-*", "4711")
    assert {letter: use.file for letter, use in profile.scripts.items()} == {"A": "soil.lua", "E": "fan.lua"}
    assert profile.dialect == "native"


def test_a_name_is_enough() -> None:
    assert parse("name: plain", "p.yaml").scripts == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("devices: []", "p.yaml:1: field name: is missing"),
        ("name: a/b", "p.yaml:1: field name: is 'a/b'"),
        ("name: default", "p.yaml:1: field name: is 'default'"),
        ("name: a\ndevice: [x]", "p.yaml:2: field device: is unknown"),
        ("name: a\ndevices: x", "p.yaml:2: field devices: must be a list"),
        ("name: a\ndevices:\n  - ok\n  - x/y", "p.yaml:4: field devices[1]: is 'x/y'"),
        ("name: a\ndevices: [true]", "p.yaml:2: field devices[0]: must be a text"),
        ("name: a\nscripts: {Z: a.lua}", "p.yaml:2: field scripts.Z: is unknown"),
        ("name: a\nscripts:\n  A: ../a.lua", "p.yaml:3: field scripts.A: is '../a.lua'"),
        ("name: a\nscripts: {A: a.py}", "p.yaml:2: field scripts.A: is 'a.py'"),
        ("name: a\ndialect: morse", "p.yaml:2: field dialect: is 'morse'"),
        ("name: [", "p.yaml:1: not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_field(text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, "p.yaml")
    assert str(caught.value).startswith(complaint)


def test_a_script_that_is_not_there_is_named_where_it_is_used() -> None:
    definition = parse(SOIL, "profiles/soil.yaml")
    soil = ScriptRef("soil.lua@1", "soil.lua", "1", "")
    with pytest.raises(ConfigurationError, match=r"profiles/soil.yaml:5: field scripts.E: names fan.lua"):
        profile_of_definition(definition, "v", {"soil.lua": soil})
    fan = ScriptRef("fan.lua@1", "fan.lua", "1", "")
    profile = profile_of_definition(definition, "v", {"soil.lua": soil, "fan.lua": fan})
    assert profile.scripts == {"A": soil, "E": fan}


@pytest.mark.parametrize(
    ("device", "profile"),
    [
        ("pump-7", "one"),  # its own number before any pattern
        ("pump-8", "pumps"),  # the more particular pattern
        ("p", "all-p"),
        ("PUMP-8", None),  # case matters
        ("x\npump", None),  # a pattern matches the whole number
        ("sensor-3", "few"),
        ("sensor-9", None),
    ],
)
def test_the_most_particular_claim_wins(device: str, profile: str | None) -> None:
    matcher = Matcher(
        [
            Profile("all-p", devices=("p*",)),
            Profile("pumps", devices=("pump-*",)),
            Profile("one", devices=("pump-7",)),
            Profile("few", devices=("sensor-[1-5]",)),
        ]
    )
    found = matcher.match(device)
    assert (found.name if found else None) == profile


def test_equal_claims_are_settled_by_name_whatever_order_they_come_in() -> None:
    a, b = Profile("a", devices=("x*", "x1")), Profile("b", devices=("x*", "x1"))
    for order in ([a, b], [b, a]):
        assert Matcher(order).match("x1") is a
        assert Matcher(order).match("x2") is a

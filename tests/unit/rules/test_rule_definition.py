"""A rule's file is read whole or refused with file, line, field, what is wrong and the remedy."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.errors import ConfigurationError
from tpstream.rules.definition import Action, Condition, parse

GOOD = """\
rule: too-hot
window: temperature_mean_10s
raise: {above: 30, for: 2}
clear: {below: 28}
severity: warning
on_raise: {command: fan, params: {on: true}}
on_clear: {command: fan, params: {on: false}, device: fan-1}
"""


def test_a_whole_rule():
    rule = parse(GOOD, "rules/hot.yaml")
    assert (rule.name, rule.window, rule.raise_for, rule.severity) == ("too-hot", "temperature_mean_10s", 2, "warning")
    assert rule.raise_when == Condition(above=30.0)
    assert rule.clear_when == Condition(below=28.0)
    assert rule.on_raise == Action("fan", '{"on":true}')
    assert rule.on_clear == Action("fan", '{"on":false}', "fan-1")
    assert rule.window_at == ("rules/hot.yaml", 2)


def test_what_may_be_left_out():
    rule = parse("rule: r\nwindow: w\nraise: {below: 1}\nclear: {above: 1}", "r.yaml")
    assert (rule.raise_for, rule.severity, rule.on_raise, rule.on_clear) == (1, "warning", None, None)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("above: 30", "abov: 30", "r.yaml:3: field raise.abov: is unknown; known here: above, below, for"),
        ("above: 30", "above: hot", "r.yaml:3: field raise.above: must be a number, is the text 'hot'; "),
        ("above: 30", "above: true", "r.yaml:3: field raise.above: must be a number, is the boolean true; "),
        ("above: 30", "above: .nan", "r.yaml:3: field raise.above: must be a number, is the text '.nan'; "),
        ("above: 30", "above: 1, below: 0", "r.yaml:3: field raise: must have one bound; "),
        ("for: 2", "for: 0", "r.yaml:3: field raise.for: must be a whole number from 1 to 10000, is 0; "),
        ("for: 2", "for: 1.5", "r.yaml:3: field raise.for: must be a whole number from 1 to 10000, is 1.5; "),
        ("clear: {below: 28}\n", "", "r.yaml:1: field clear: is missing; add it"),
        ("{below: 28}", "{}", "r.yaml:4: field clear: must have one bound; "),
        ("{below: 28}", "{above: 28}", "r.yaml:4: field clear: overlaps raise; clear with below: 30 or less"),
        ("{below: 28}", "{below: 31}", "r.yaml:4: field clear: overlaps raise; "),
        ("{below: 28}", "28", "r.yaml:4: field clear: must be an object, is 28; "),
        ("severity: warning", "severity: loud", "r.yaml:5: field severity: is 'loud'; use one of info, warning, "),
        ("severity: warning", "window: x", "r.yaml:5: field window: stands there twice; remove one"),
        ("severity: warning", "sevrity: x", "r.yaml:5: field sevrity: is unknown; "),
        ("command: fan, params: {on: true}", "params: {}", "r.yaml:6: field on_raise.command: is missing; add it"),
        ("too-hot", "too hot", "r.yaml:1: field rule: is 'too hot'; "),
        ("too-hot", "17", "r.yaml:1: field rule: must be a text, is 17; "),
        ("too-hot", "&a [*a]", "r.yaml:1: not YAML: aliases"),
        ("too-hot", "!!python/object:os.system [x]", "r.yaml:1: field rule: must be a text"),
        ("too-hot", "!run x", "r.yaml:1: field rule: has the tag !run; remove the tag"),
        ("severity: warning", "severity: [", "r.yaml:7: not YAML: "),
        (GOOD, "", "r.yaml:1: the file is empty; "),
        (GOOD, "- a", "r.yaml:1: field (top): must be an object, is a list; "),
        (GOOD, "[" * 5000, "r.yaml:1: nested too deeply"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_place(old, new, message):
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        parse(GOOD.replace(old, new, 1), "r.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="ab:{}[]-,'\"\n &*!?|>#%@`01", max_size=60))
def test_no_text_whatever_raises_anything_else(text):
    with contextlib.suppress(ConfigurationError):
        parse(text, "r.yaml")

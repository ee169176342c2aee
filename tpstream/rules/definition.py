"""What a rule is, and how it is read from `rules/*.yaml`.

rule: too-hot
window: temperature_mean_10s
raise: {above: 30, for: 2}
clear: {below: 28}
severity: warning
on_raise: {command: fan, params: {on: true}}
on_clear: {command: fan, params: {on: false}}
"""

from __future__ import annotations

import re

import msgspec

from tpstream.rules.document import Field, read

SEVERITIES = ("info", "warning", "critical")
MAX_WINDOWS = 10_000
"""Bound of `for`, so that a slip of the finger is an error and not a rule that never fires."""


class Condition(msgspec.Struct, frozen=True):
    """A bound on a window's value: exactly one of the two is set."""

    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether the value is strictly beyond the bound."""
        if self.above is not None:
            return value > self.above
        return self.below is not None and value < self.below


class Action(msgspec.Struct, frozen=True):
    """A command that an alarm sends when it is raised or cleared."""

    command: str
    """The method, as in docs/protocol.md."""
    params: str = ""
    """JSON text; empty: none."""
    device: str = ""
    """Empty: the device whose window raised the alarm."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule on the values of one window, per device and key."""

    name: str
    window: str
    raise_when: Condition
    raise_for: int = 1
    """Consecutive windows for which the condition must hold."""
    clear_when: Condition
    severity: str = "warning"
    on_raise: Action | None = None
    on_clear: Action | None = None
    window_at: tuple[str, int] = ("", 0)
    """File and line of the field `window`, for complaints about a window that does not exist."""


def parse(text: str, file: str) -> Rule:
    """The rule in a YAML text; ConfigurationError names file, line, field, what is wrong, and the remedy."""
    top = read(text, file).fields(("rule", "window", "raise", "clear"), ("severity", "on_raise", "on_clear"))
    raise_when = _condition(top["raise"], "for")
    clear_when = _condition(top["clear"])
    _check_hysteresis(top["clear"], raise_when, clear_when)
    again = top["raise"].value.get("for")
    severity = top["severity"].text() if "severity" in top else "warning"
    if severity not in SEVERITIES:
        raise top["severity"].error(f"is {severity!r}", f"use one of {', '.join(SEVERITIES)}")
    return Rule(
        name=_name(top["rule"]),
        window=top["window"].text(),
        window_at=(file, top["window"].line),
        raise_when=raise_when,
        raise_for=again.integer(1, MAX_WINDOWS) if again else 1,
        clear_when=clear_when,
        severity=severity,
        on_raise=_action(top["on_raise"]) if "on_raise" in top else None,
        on_clear=_action(top["on_clear"]) if "on_clear" in top else None,
    )


def _name(field: Field) -> str:
    name = field.text()
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise field.error(f"is {name!r}", "use up to 64 letters, digits, '.', '_' and '-'")
    return name


def _condition(field: Field, *more: str) -> Condition:
    bounds = field.fields((), ("above", "below", *more))
    if ("above" in bounds) == ("below" in bounds):
        raise field.error("must have one bound", "give it either above or below")
    if "above" in bounds:
        return Condition(above=bounds["above"].number())
    return Condition(below=bounds["below"].number())


def _check_hysteresis(field: Field, raised: Condition, cleared: Condition) -> None:
    """A value may never both raise and clear: else the alarm would depend on which is asked first."""
    if raised.above is not None and (cleared.below is None or cleared.below > raised.above):
        raise field.error("overlaps raise", f"clear with below: {raised.above:g} or less")
    if raised.below is not None and (cleared.above is None or cleared.above < raised.below):
        raise field.error("overlaps raise", f"clear with above: {raised.below:g} or more")


def _action(field: Field) -> Action:
    parts = field.fields(("command",), ("params", "device"))
    params = parts.get("params")
    return Action(
        command=parts["command"].text(),
        params="" if params is None else msgspec.json.encode(params.plain()).decode(),
        device=parts["device"].text() if "device" in parts else "",
    )

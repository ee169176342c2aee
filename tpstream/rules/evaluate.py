"""Whether a closed window raises or clears an alarm: a pure function of rule, state and window.

A rule's windows are taken by rising start; one that is repeated or older changes nothing, so a
replay neither raises nor commands again. Windows are consecutive when none was closed between
them: times without points make no window and break no row.
"""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import msgspec

from tpstream.messages import Alarm, AlarmState, CommandRequest, WindowResult
from tpstream.rules.definition import Action, Rule
from tpstream.rules.state import RuleState

REMOVED = "rule removed"
CROWDED = "too many keys"


class Evaluated(NamedTuple):
    """The rule's next state on that key, and what is to be told."""

    state: RuleState
    alarm: Alarm | None = None
    commands: tuple[CommandRequest, ...] = ()


def evaluate(rule: Rule, state: RuleState | None, result: WindowResult, origin: str) -> Evaluated:
    """One closed window of the rule's window. `origin` is the identity of the record's origin: ids come of it."""
    if state is None or state.window != rule.window:
        # Another window counts from its beginning; an active alarm stays, and is cleared by it.
        state = RuleState(rule.window, result.start - 1, 0, None if state is None else state.alarm)
    if result.start <= state.newest:
        return Evaluated(state)
    value = result.value if result.value is not None and math.isfinite(result.value) else None
    if state.alarm is not None:
        if value is not None and rule.clear_when.holds(value):
            alarm = _cleared(state.alarm, result.closed_at, _window(result))
            commands = _commands(rule, rule.on_clear, result, origin)
            return Evaluated(RuleState(rule.window, result.start), alarm, commands)
        return Evaluated(RuleState(rule.window, result.start, 0, state.alarm))
    held = state.held + 1 if value is not None and rule.raise_when.holds(value) else 0
    if held < rule.raise_for:
        return Evaluated(RuleState(rule.window, result.start, held))
    alarm = Alarm(
        id=identifier("alarm", rule.name, result.device, result.key, origin),
        rule=rule.name,
        device=result.device,
        severity=rule.severity,
        state=AlarmState.ACTIVE,
        started_at=result.closed_at,
        version=1,
        value=value,
        details=_details({"raised": _window(result)}),
    )
    commands = _commands(rule, rule.on_raise, result, origin)
    return Evaluated(RuleState(rule.window, result.start, 0, alarm), alarm, commands)


def removed(alarm: Alarm, clock: int, reason: str = REMOVED) -> Alarm:
    """An active alarm that nothing would ever clear: cleared at `clock` (ms), with a reason, without a command."""
    return _cleared(alarm, clock, {"reason": reason})


def identifier(*parts: str) -> str:
    """A text of 36 characters in the shape of a UUID, always the same for the same parts."""
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


def _cleared(alarm: Alarm, at: int, why: dict[str, object]) -> Alarm:
    details = {**(msgspec.json.decode(alarm.details) if alarm.details else {}), "cleared": why}
    return msgspec.structs.replace(
        alarm, state=AlarmState.CLEARED, ended_at=at, version=alarm.version + 1, details=_details(details)
    )


def _window(result: WindowResult) -> dict[str, object]:
    names = ("window", "key", "start", "end", "aggregate", "value", "count")
    return {name: getattr(result, name) for name in names}


def _details(content: dict[str, object]) -> str:
    return msgspec.json.encode(content).decode()


def _commands(rule: Rule, action: Action | None, result: WindowResult, origin: str) -> tuple[CommandRequest, ...]:
    if action is None:
        return ()
    return (
        CommandRequest(
            id=identifier("command", rule.name, result.device, result.key, origin),
            device=action.device or result.device,
            method=action.command,
            created_at=result.closed_at,
            params=action.params,
            source=f"rule:{rule.name}",
        ),
    )

"""What is remembered of rules: the value of the table `alarms`, key: device.

Replaced, never changed in place: an undone batch puts the old value back.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tpstream.messages import Alarm

MAX_SERIES = 1_000
"""Keys of one device that a rule remembers; beyond it the one without news for longest is forgotten."""


class RuleState(msgspec.Struct, frozen=True, omit_defaults=True):
    """One rule on one key of one device."""

    window: str
    """The window whose results it has followed."""
    newest: int
    """Start of the newest window seen, ms."""
    held: int = 0
    """Windows in a row for which the raise condition has held; 0 while the alarm is active."""
    alarm: Alarm | None = None
    """The alarm while it is active."""


class DeviceAlarms(msgspec.Struct, frozen=True, omit_defaults=True):
    """All rules on one device."""

    rules: dict[str, dict[str, RuleState]] = {}
    """By rule name, then key."""
    release: str = ""
    """Only in the partition's own entry: the release in force, as it was announced."""
    life: bytes = b""
    """With it: the life of the topics in which it was."""

    def of(self, rule: str, key: str) -> RuleState | None:
        """The state of a rule on a key."""
        return self.rules.get(rule, {}).get(key)

    def having(self, rule: str, key: str, state: RuleState) -> DeviceAlarms:
        """These, with that state."""
        return DeviceAlarms({**self.rules, rule: {**self.rules.get(rule, {}), key: state}})

    def beyond(self, rule: str) -> str | None:
        """The key to forget of a rule that is beyond the bound: without an alarm if there is one, then the oldest."""
        keys = self.rules.get(rule, {})
        if len(keys) <= MAX_SERIES:
            return None
        return min(keys, key=lambda key: (keys[key].alarm is not None, keys[key].newest))

    def forgetting(self, rule: str, key: str) -> DeviceAlarms:
        """These, without what belongs to that key."""
        keys = {k: state for k, state in self.rules[rule].items() if k != key}
        return DeviceAlarms({**self.rules, rule: keys})

    def without(self, rules: set[str]) -> DeviceAlarms:
        """These, without what belongs to those rules."""
        return DeviceAlarms({name: keys for name, keys in self.rules.items() if name not in rules})

    def states(self) -> Iterator[tuple[str, str, RuleState]]:
        """Rule, key and state of all."""
        return ((rule, key, state) for rule, keys in self.rules.items() for key, state in keys.items())

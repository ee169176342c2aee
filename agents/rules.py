"""Closed windows against the rules: raises and clears alarms, and sends their commands.

A thin shell over `tpstream.rules.evaluate`. The rules are those of the release in force, which
changes where a configuration record passes, so that a replay uses what was in force.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from tables.alarms import PARTITION, alarms
from tpstream.app import Services, app
from tpstream.bus import topics
from tpstream.bus.batch import Batch, Record, kind_of
from tpstream.bus.envelope import Kind
from tpstream.bus.table_partition import TablePartition
from tpstream.errors import TpstreamError
from tpstream.messages import Alarm, WindowResult
from tpstream.rules.definition import Rule
from tpstream.rules.evaluate import CROWDED, evaluate, removed
from tpstream.rules.state import DeviceAlarms


class Announced(msgspec.Struct):
    """The value of a configuration record."""

    release: str


@app.batch_agent(topics.windows, tables=(alarms,), name="rules")
async def apply_rules(batch: Batch) -> None:
    """Evaluate each window by the rules on it; go over to other rules where they were announced."""
    state = alarms.of(batch)
    services: Services = batch.services
    catalog = services.catalog
    rules: dict[str, list[Rule]] | None = None
    for record in batch:
        kind = kind_of(record)
        if kind is Kind.CONFIGURATION:
            position = batch.position(record)
            if state.seen(PARTITION, position):
                continue  # replayed: a later release may be in force
            release = _announced(record)
            in_force = catalog.rules(release)
            rules = _by_window(in_force)
            state.put(PARTITION, DeviceAlarms(release=release, life=batch.life), position)
            _clear_removed(batch, record, state, {rule.name for rule in in_force})
        elif kind is Kind.PUBLISH and record.value is not None:
            if rules is None:
                rules = _by_window(catalog.rules(_in_force(batch, state)))
            result: WindowResult = batch.topic.decode(record.value)
            if on_window := rules.get(result.window):
                _evaluate(batch, record, state, on_window, result)


def _in_force(batch: Batch, state: TablePartition[DeviceAlarms]) -> str | None:
    """The release that was last announced in this life of the topics; None: the newest.

    The configuration topics of a new life may never have had one of an earlier life.
    """
    known = state.get(PARTITION)
    return known.release if known is not None and known.life == batch.life else None


def _evaluate(
    batch: Batch, record: Record, state: TablePartition[DeviceAlarms], rules: Iterable[Rule], result: WindowResult
) -> None:
    if not result.device:
        raise TpstreamError(f"{batch.topic.name}: a window without a device; give it its device number")
    derived = batch.derived(record)
    before = device = state.get(result.device) or DeviceAlarms()
    for rule in rules:
        old = device.of(rule.name, result.key)
        evaluated = evaluate(rule, old, result, derived.origin.identity())
        if evaluated.state != old:
            device = device.having(rule.name, result.key, evaluated.state)
            if (crowded := device.beyond(rule.name)) is not None:
                forgotten = device.rules[rule.name][crowded].alarm
                device = device.forgetting(rule.name, crowded)
                if forgotten is not None:
                    _send_alarm(batch, record, removed(forgotten, record.timestamp, CROWDED))
        if evaluated.alarm is not None:
            _send_alarm(batch, record, evaluated.alarm)
        for command in evaluated.commands:
            batch.send(
                topics.downlink_command,
                command,
                key=command.device,
                position=derived.position,
                origin=derived.origin,
                timestamp=record.timestamp,
            )
    if device is not before:
        state.put(result.device, device)


def _clear_removed(batch: Batch, record: Record, state: TablePartition[DeviceAlarms], names: set[str]) -> None:
    """Clear what belongs to rules that are no longer there: nothing else would ever clear it."""
    for key, device in list(state.items()):
        gone = set(device.rules) - names
        if gone:
            for rule, _, old in device.states():
                if rule in gone and old.alarm is not None:
                    _send_alarm(batch, record, removed(old.alarm, record.timestamp))
            state.put(key, device.without(gone))


def _send_alarm(batch: Batch, record: Record, alarm: Alarm) -> None:
    derived = batch.derived(record)
    batch.send(
        topics.alarms,
        alarm,
        key=alarm.device,
        position=derived.position,
        origin=derived.origin,
        timestamp=record.timestamp,
        partition=batch.partition,
    )


def _by_window(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        found.setdefault(rule.window, []).append(rule)
    return found


def _announced(record: Record) -> str:
    try:
        return msgspec.json.decode(record.value or b"", type=Announced).release
    except msgspec.DecodeError as error:
        raise TpstreamError(f"configuration record at offset {record.offset}: {error}") from None

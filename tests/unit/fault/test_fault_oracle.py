"""The campaign's oracle: it finds nothing where all is right, and each thing that is wrong."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from fault.campaign import oracle
from fault.campaign.ledger import Ledger, missing
from fault.campaign.oracle import AlarmRow, RollupRow, What, WindowRow
from fault.campaign.report import BEGIN, END, Result, Span, laid_at, table, write
from fault.campaign.spoken import Spoken, number
from fault.campaign.stream import HEAT_MS, SHUFFLE, WINDOWS, Plan, Point
from hypothesis import given
from hypothesis import strategies as st

BASE = 1_700_000_000_000 - 1_700_000_000_000 % (2 * HEAT_MS)
PLAN = Plan(BASE)
POINTS = dict(PLAN.slices(60_000))
HEAT = next(prefix for prefix in POINTS if prefix.startswith("heat-"))


def whats(findings: list[oracle.Finding]) -> list[What]:
    return [finding.what for finding in findings]


# The stream


def test_no_two_points_have_one_identity_and_the_slices_are_the_stream() -> None:
    points = [point for n in range(60_000) for point in PLAN.points(n)]
    assert len({point[:3] for point in points}) == len(points)
    assert Counter(points) == Counter(point for some in POINTS.values() for point in some)


@given(st.integers(0, 10_000_000))
def test_a_message_says_its_points_and_none_is_delivered_before_its_time(n: int) -> None:
    message, points = PLAN.message(n), PLAN.points(n)
    told = json.loads(message.payload)
    elements = told if isinstance(told, list) else [told]
    assert [(k, e["ts"], v) for e in elements for k, v in e["values"].items()] == [p[1:] for p in points]
    assert all(point.device == message.device and point.ts <= message.due for point in points)


def test_no_point_is_late() -> None:
    """In the order of publishing a point is never behind its device's newest by more than the lateness."""
    latest = max(SHUFFLE) + 100
    assert all(latest < window.lateness for window in WINDOWS if not window.idle)


@given(st.integers(0, 10_000_000))
def test_a_device_says_a_message_that_tells_its_number(n: int) -> None:
    plan = Spoken(BASE)
    point = plan.point(n)
    assert json.loads(plan.payload(n)) == {"ts": point.ts, "values": {point.key: n}}
    assert number(plan.payload(n)) == n


def test_the_slices_of_what_devices_say_are_all_of_it() -> None:
    plan = Spoken(BASE)
    points = [plan.point(n) for n in range(1_005)]
    assert len({point[:3] for point in points}) == len(points)
    assert Counter(points) == Counter(point for _, some in plan.slices(1_005) for point in some)
    assert all(point.device == device for device, some in plan.slices(1_005) for point in some)


# Points


def test_all_stored_once_is_no_finding() -> None:
    for points in POINTS.values():
        assert oracle.compare_points(points, reversed(points)) == []


def test_each_wrong_point_is_found() -> None:
    points = POINTS[HEAT]
    stored = [*points[1:], points[5], points[7]._replace(number=-1.0), Point("nobody", "n", BASE, 1.0)]
    found = oracle.compare_points(points, stored)
    assert Counter(whats(found)) == {What.LOST: 1, What.DUPLICATED: 1, What.FOREIGN: 2}
    assert next(f.at for f in found if f.what is What.LOST) == points[0].ts


# Windows

WINDOW = oracle.Window("w", "k", 10, False, 5, False)


@pytest.mark.parametrize(
    ("newest", "closed"),
    [(14, []), (15, [WindowRow("w", "d", "k", 0, 6.0, 3)]), (24, [WindowRow("w", "d", "k", 0, 6.0, 3)])],
)
def test_a_window_is_closed_when_the_device_is_past_its_end_and_lateness(newest: int, closed: list[WindowRow]) -> None:
    points = [Point("d", "k", ts, float(ts)) for ts in (1, 2, 3)] + [Point("d", "other", newest, 0.0)]
    assert oracle.windows_of(points, [WINDOW]) == closed


def test_a_window_that_silence_closes_is_closed_whatever_the_device_said_last() -> None:
    points = [Point("d", "k", 1, 5.0), Point("d", "k", 12, 7.0)]
    window = WINDOW._replace(idle=True, mean=True)
    assert oracle.windows_of(points, [window]) == [
        WindowRow("w", "d", "k", 0, 5.0, 1),
        WindowRow("w", "d", "k", 10, 7.0, 1),
    ]


def test_the_windows_of_the_stream_are_whole() -> None:
    rows = oracle.windows_of(POINTS[HEAT])
    inner = [row for row in rows if row.start > BASE and row.start % 60_000]
    assert {row.points for row in inner if row.window == "heat"} == {20}
    assert {row.value for row in inner if row.window == "heat"} == {0.0, 100.0}
    assert {row.points for row in inner if row.window == "numbers"} == {50}
    assert sum(row.points for row in oracle.windows_of(POINTS["quiet-"])) == len(POINTS["quiet-"])


def test_each_wrong_window_is_found() -> None:
    points = POINTS[HEAT]
    rows = oracle.windows_of(points)
    assert oracle.compare_windows(points, reversed(rows)) == []
    short = rows[1]._replace(points=rows[1].points - 1)
    early = WindowRow("numbers", HEAT, "n", BASE + 86_400_000, 1.0, 1)
    found = oracle.compare_windows(points, [*rows[2:], short, rows[3], early])
    assert whats(found) == [What.WINDOW] * 4
    assert found[-1].at == rows[0].start, "the one that is missing"


def test_a_window_that_is_told_of_twice_is_told_of_in_the_same_words() -> None:
    row = WindowRow("w", "d", "k", 0, 6.0, 3)
    assert oracle.compare_told([(row, "a"), (row, "a")]) == []
    assert len(oracle.compare_told([(row, "a"), (row, "b")])) == 1
    assert len(oracle.compare_told([(row, "a"), (row._replace(points=4), "a")])) == 1


# Alarms and roll-ups


@pytest.mark.parametrize(
    ("connections", "told", "found"),
    [(1, 1, []), (2, 2, []), (2, 1, []), (1, 2, [What.DUPLICATED]), (2, 3, [What.DUPLICATED]), (1, 0, [What.LOST])],
)
def test_a_message_is_told_of_once_for_each_connection(connections: int, told: int, found: list[What]) -> None:
    point = Spoken(BASE).point(3)
    assert whats(oracle.compare_heard({3: point}, {3: connections}, {3: told})) == found


def test_alarms_are_raised_and_cleared_by_the_values_that_are_known() -> None:
    alarms = oracle.alarms_of(oracle.windows_of(POINTS[HEAT]))
    assert alarms[0] == AlarmRow(HEAT, BASE + HEAT_MS, BASE + 2 * HEAT_MS)
    assert [alarm.raised - alarms[0].raised for alarm in alarms] == [n * 2 * HEAT_MS for n in range(len(alarms))]
    assert len(alarms) == 3


def test_each_wrong_alarm_is_found() -> None:
    points = POINTS[HEAT]
    alarms = oracle.alarms_of(oracle.windows_of(points))
    assert oracle.compare_alarms(points, alarms) == []
    assert len(oracle.compare_alarms(points, alarms[1:])) == 1
    assert len(oracle.compare_alarms(points, [*alarms, alarms[0]])) == 1
    assert len(oracle.compare_alarms(points, [alarms[0]._replace(cleared=None), *alarms[1:]])) == 2


def test_each_wrong_roll_up_is_found() -> None:
    points = POINTS[HEAT]
    rows = oracle.rollups_of(points, 60_000)
    assert sum(row.points for row in rows) == len(points)
    assert oracle.rollups_of([Point("d", "k", 61, 1.0), Point("d", "k", 119, 4.0)], 60) == [
        RollupRow("d", "k", 60, 2, 5.0, 1.0, 4.0)
    ]
    assert oracle.compare_rollups(points, 60_000, rows) == []
    assert len(oracle.compare_rollups(points, 60_000, [rows[0]._replace(sum=-1.0), *rows[1:]])) == 2


# Ledger and report


def test_the_ledger_names_what_was_never_acknowledged(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.acknowledged([3, 0])
    ledger.acknowledged([1])
    with (tmp_path / "ledger").open("ab") as torn:
        torn.write(b"\x07")
    assert list(Ledger.read(tmp_path / "ledger")) == [3, 0, 1]
    assert missing(Ledger.read(tmp_path / "ledger"), 5) == [2, 4]


def test_a_finding_is_laid_at_the_fault_in_whose_time_it_is() -> None:
    spans = [Span("one", 10.0, 20.0), Span("two", 20.0, 30.0)]
    found = [oracle.Finding(What.LOST, at, "") for at in (9_000, 10_000, 19_999, 20_000, 99_000)]
    assert [fault for fault, _ in laid_at(found, spans)] == ["(between faults)", "one", "one", "two", "two"]


def test_the_table_counts_and_a_single_finding_is_no_pass() -> None:
    result = Result(1, 2_000, "1 worker", 0.0, spans=[Span("one", 10.0, 20.0, 1.5), Span("one", 30.0, 40.0, 2.5)])
    assert result.passed
    assert "| one | 2 | 0 | 0 | 0 | 0 | 0 | 2.5 |" in table(result, ["one"])
    result.findings.append(oracle.Finding(What.WINDOW, 31_000, ""))
    assert not result.passed
    assert "| one | 2 | 0 | 0 | 1 | 0 | 0 | 2.5 |" in table(result, ["one"])
    result.findings.clear()
    result.spans[0].trouble = "it was not there"
    assert not result.passed


def test_the_page_keeps_what_stands_around_the_table(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"

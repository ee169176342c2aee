"""What must be stored, computed from what was published alone; and every difference, with its time.

Pure, and written without a line of the code that it judges. Times are event times in ms, which
are about when a message was published: so a difference can be laid at a fault's door.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from fault.campaign.stream import CLEAR_BELOW, RAISE_ABOVE, RULE_WINDOW, WINDOWS, Point, Window


class What(StrEnum):
    """What can be wrong."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    FOREIGN = "foreign"
    WINDOW = "wrong window"
    ALARM = "wrong alarm"
    ROLLUP = "wrong roll-up"


class Finding(NamedTuple):
    """One difference: what, when (event time, ms), and in words."""

    what: What
    at: int
    text: str


class WindowRow(NamedTuple):
    """A closed window, with how many points it took."""

    window: str
    device: str
    key: str
    start: int
    value: float
    points: int


class AlarmRow(NamedTuple):
    """An alarm: the start (ms) of the window that raised it, and of the one that cleared it; None: none has."""

    device: str
    raised: int
    cleared: int | None


class RollupRow(NamedTuple):
    """What a roll-up says of a device, a key and a stretch of time."""

    device: str
    key: str
    start: int
    points: int
    sum: float
    min: float
    max: float


def compare_points(published: Sequence[Point], stored: Iterable[Point]) -> list[Finding]:
    """Every published point is stored once, with its number; nothing else is."""
    found: list[Finding] = []
    wanted = {point[:3]: point.number for point in published}
    seen: Counter[tuple[str, str, int]] = Counter()
    for point in stored:
        place = point[:3]
        if wanted.get(place) != point.number:
            found.append(Finding(What.FOREIGN, point.ts, f"{point} was never published"))
        else:
            seen[place] += 1
    for place in wanted:
        if place not in seen:
            found.append(Finding(What.LOST, place[2], f"{place} = {wanted[place]:.0f} is not stored"))
        elif seen[place] > 1:
            found.append(Finding(What.DUPLICATED, place[2], f"{place} is stored {seen[place]} times"))
    return found


def windows_of(published: Sequence[Point], definitions: Sequence[Window] = WINDOWS) -> list[WindowRow]:
    """The windows that are closed when all these points have been folded and all silence has passed."""
    newest: dict[str, int] = defaultdict(lambda: -1)
    for point in published:
        newest[point.device] = max(newest[point.device], point.ts)
    rows: list[WindowRow] = []
    for window in definitions:
        sums: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0, 0.0])
        for point in published:
            if point.key == window.key:
                total = sums[point.device, point.ts - point.ts % window.size]
                total[0] += 1
                total[1] += point.number
        for (device, start), (count, total_sum) in sums.items():
            if window.idle or start + window.size + window.lateness <= newest[device]:
                value = total_sum / count if window.mean else total_sum
                rows.append(WindowRow(window.name, device, window.key, start, value, int(count)))
    return rows


def compare_windows(published: Sequence[Point], stored: Iterable[WindowRow]) -> list[Finding]:
    """Each closed window is there once, with the value and count that were computed here; none else is."""
    wanted = {row[:4]: row for row in windows_of(published)}
    found: list[Finding] = []
    seen: set[tuple[str, str, str, int]] = set()
    for row in stored:
        place = row[:4]
        expected = wanted.get(place)
        if place in seen:
            found.append(Finding(What.WINDOW, row.start, f"{place} is there twice"))
        elif expected is None:
            found.append(Finding(What.WINDOW, row.start, f"{row} should not be closed"))
        elif expected != row:
            text = f"{place}: {row.value:.2f} of {row.points}, not {expected.value:.2f} of {expected.points}"
            found.append(Finding(What.WINDOW, row.start, text))
        seen.add(place)
    found += [Finding(What.WINDOW, place[3], f"{row} is missing") for place, row in wanted.items() if place not in seen]
    return found


def compare_told(told: Iterable[tuple[WindowRow, str]]) -> list[Finding]:
    """A window may be told of again (topics are at least once), but always in the same words and of one origin."""
    first: dict[tuple[str, str, str, int], tuple[WindowRow, str]] = {}
    found: list[Finding] = []
    for row, origin in told:
        known = first.setdefault(row[:4], (row, origin))
        if known != (row, origin):
            found.append(Finding(What.WINDOW, row.start, f"told as {known[0]} ({known[1]}) and as {row} ({origin})"))
    return found


def compare_heard(
    points: Mapping[int, Point], connections: Mapping[int, int], told: Mapping[int, int]
) -> list[Finding]:
    """A message is told of once for each connection on which its device said it, however often a bridge produced it.

    A device may say it again on another connection, which the platform takes for a new message; its point is the
    same. By number: the point; on how many connections it was said; of how many origins it is told.
    """
    found: list[Finding] = []
    for n, point in points.items():
        said, times = connections.get(n, 0), told.get(n, 0)
        if times > said:
            text = f"message {n} of {point.device} was said on {said} connections and is told of {times} times"
            found.append(Finding(What.DUPLICATED, point.ts, text))
        elif not times:
            found.append(Finding(What.LOST, point.ts, f"message {n} of {point.device} is not told of"))
    return found


def alarms_of(windows: Iterable[WindowRow]) -> list[AlarmRow]:
    """The alarms that the rule must raise on these windows."""
    alarms: list[AlarmRow] = []
    raised: dict[str, int] = {}
    for row in sorted((row for row in windows if row.window == RULE_WINDOW), key=lambda row: row.start):
        if row.device in raised and row.value < CLEAR_BELOW:
            alarms.append(AlarmRow(row.device, raised.pop(row.device), row.start))
        elif row.device not in raised and row.value > RAISE_ABOVE:
            raised[row.device] = row.start
    return alarms + [AlarmRow(device, start, None) for device, start in raised.items()]


def compare_alarms(published: Sequence[Point], stored: Iterable[AlarmRow]) -> list[Finding]:
    """Every alarm is there once, raised and cleared by the windows that should."""
    wanted, seen = Counter(alarms_of(windows_of(published))), Counter(stored)
    missing, more = wanted - seen, seen - wanted
    return [
        *(Finding(What.ALARM, row.raised, f"{row} is missing") for row in missing.elements()),
        *(Finding(What.ALARM, row.raised, f"{row} should not be there") for row in more.elements()),
    ]


def rollups_of(published: Sequence[Point], size: int) -> list[RollupRow]:
    """GROUP BY device, key and stretch of `size` ms."""
    groups: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for point in published:
        groups[point.device, point.key, point.ts - point.ts % size].append(point.number)
    return [RollupRow(*place, len(n), sum(n), min(n), max(n)) for place, n in groups.items()]


def compare_rollups(published: Sequence[Point], size: int, stored: Iterable[RollupRow]) -> list[Finding]:
    """The roll-up by `size` ms says what the points do."""
    wanted, seen = Counter(rollups_of(published, size)), Counter(stored)
    return [
        *(Finding(What.ROLLUP, row.start, f"{row} is missing") for row in (wanted - seen).elements()),
        *(Finding(What.ROLLUP, row.start, f"{row} should not be there") for row in (seen - wanted).elements()),
    ]

"""When a partition stands still: it is behind, and has been for long, and has not moved."""

from __future__ import annotations

import pytest

from tpstream.bus.progress import Progress


@pytest.mark.parametrize(
    ("looks", "moved_at", "now", "stalled"),
    [
        ([(10.0, 0)], 0.0, 100.0, False),  # idle for long, nothing to do
        ([(10.0, 0), (99.0, 5)], 0.0, 100.0, False),  # something came a second ago
        ([(10.0, 5), (99.0, 9)], 0.0, 100.0, True),
        ([(10.0, 5), (99.0, 9)], 95.0, 100.0, False),  # behind, but on its way
        ([(10.0, 5), (50.0, 0), (99.0, 9)], 0.0, 100.0, False),
    ],
)
def test_it_stands_still(looks: list[tuple[float, int]], moved_at: float, now: float, stalled: bool) -> None:
    progress = Progress(moved_at=moved_at)
    for at, lag in looks:
        progress.look(lag, at)
    assert progress.stalled(60.0, now) is stalled

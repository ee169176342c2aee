"""A year of real temperatures through the whole platform: each day's mean is what pandas makes of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from parts.whole import Platform
from vega_datasets import local_data

from tpstream.bus import topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEATTLE = Path(local_data.seattle_temps.filepath)
HOURS, DAYS = 8_759, 365


def daily_means(folder: Path) -> Path:
    """An application of one window, closed three seconds after the device has fallen silent."""
    package = folder / "weather"
    package.mkdir(parents=True)
    (folder / "app.toml").write_text('name = "weather"\npackage = "weather"\n')
    (package / "__init__.py").write_text(
        "from tpstream import app\n\n"
        'app.window("temp_mean_1d", key="temp", size="1d", aggregate="mean", lateness="1h", idle="3s")\n'
    )
    return folder


def test_a_year_of_days(platform: Callable[..., Platform], tmp_path: Path) -> None:
    running = platform("--app", str(daily_means(tmp_path / "app")))
    done = running.run(
        "replay", str(SEATTLE), "--device", "seattle", "--ts", "date", "--keys", "temp", "--speed", "max"
    )
    assert done.returncode == 0, done.stderr
    assert f"{HOURS} messages of 1 device sent and acknowledged" in done.stdout
    points = "SELECT count(), uniqExact(ts) FROM telemetry WHERE device = 'seattle' AND key = 'temp'"
    running.wait(lambda: running.rows(points) == [(HOURS, HOURS)])
    count = "SELECT count() FROM windows WHERE device = 'seattle'"
    running.wait(lambda: running.rows(count) == [(DAYS,)], 20)

    frame = pd.read_csv(SEATTLE)
    series = frame.set_index(pd.to_datetime(frame["date"], utc=True))["temp"]
    days = series.resample("1D")
    expected = [
        (int(day.timestamp() * 1000), int(day.timestamp() * 1000) + 86_400_000, counted, pytest.approx(mean, abs=1e-9))
        for day, counted, mean in zip(days.mean().index, days.count(), days.mean(), strict=True)
    ]
    assert len(expected) == DAYS
    rows = running.rows(
        "SELECT toUnixTimestamp64Milli(start), toUnixTimestamp64Milli(end), count, value FROM windows"
        " WHERE window = 'temp_mean_1d' AND key = 'temp' AND aggregate = 'mean' ORDER BY start"
    )
    assert rows == expected
    assert len(running.records(topics.windows)) == DAYS, "each was told once"
    assert running.records(topics.late) == []
    assert running.rows("SELECT count() FROM dead_letters") == [(0,)]
    assert running.stop() == 0

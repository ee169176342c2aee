"""What a definition may say, and what is refused: naming the window, the field and the remedy."""

import msgspec
import pytest

from tpstream.app import App
from tpstream.bus import topics
from tpstream.errors import ConfigurationError
from tpstream.windows.definition import window


class Reading(msgspec.Struct):
    ts: int
    temperature: float
    wind_speed: float = msgspec.field(default=0.0, name="wind")


class Row(msgspec.Struct, array_like=True):
    ts: int


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hop": "3s"}, "window 'w': hop '3s' must divide size '10s'"),
        ({"hop": "20s"}, "hop '20s' must divide size '10s'"),
        ({"hop": 0}, "hop 0 must divide"),
        ({"hop": "5ms"}, "size '10s' is 2000 times hop '5ms', at most 1000"),
        ({"hop": "soon"}, "window 'w': hop: 'soon' is not a duration"),
        ({"size": "0s"}, "window 'w': size must be positive"),
        ({"aggregate": "stddev"}, "aggregate 'stddev' is none of .*stddevSamp, stddevPop"),
        ({"time": "ts"}, "time 'ts' needs topic="),
    ],
)
def test_a_wrong_definition_is_refused(given, said):
    with pytest.raises(ConfigurationError, match=said):
        window("w", **{"key": "t", "size": "10s", **given})


def test_a_window_tumbles_unless_it_hops():
    assert window("w", key="t", size="10s").hop == 10_000
    assert window("w", key="t", size="10s", hop="2s").hop == 2_000


@pytest.fixture
def app():
    return App()


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        (Reading, {"key": "humidity"}, "window 'w': topic plant has no field 'humidity' .key.; Reading has ts, temper"),
        (Reading, {"key": "temperature", "time": "when"}, "has no field 'when' .time."),
        (Reading, {"key": "wind_speed"}, "has no field 'wind_speed'"),
        (Reading, {"key": "ts", "time": "ts"}, "key and time are both 'ts'"),
        (Row, {"key": "ts"}, "records that are arrays"),
        (bytes, {"key": "ts"}, "records of bytes"),
    ],
)
def test_a_window_over_a_topic_that_cannot_have_what_it_wants(app, kind, given, said):
    with pytest.raises(ConfigurationError, match=said):
        app.window("w", topic=app.topic("plant", kind), size="10s", **given)
    assert app.windows == {}
    assert app.agents == {}


def test_over_a_topic_of_tpstreams_own_or_none_at_all(app):
    with pytest.raises(ConfigurationError, match="tpstream's own; leave out topic="):
        app.window("w", topic=topics.uplink_telemetry, key="t", size="10s")
    with pytest.raises(ConfigurationError, match="window 'w': topic 'plant' is no topic"):
        app.window("w", topic="plant", key="t", size="10s")


def test_two_windows_of_a_name_are_refused_and_the_same_twice_is_one(app):
    app.window("w", key="t", size="10s")
    app.window("w", key="t", size="10s")
    with pytest.raises(ConfigurationError, match="two windows are named 'w'"):
        app.window("w", key="t", size="20s")


def test_the_windows_of_a_topic_share_an_agent_a_table_and_a_time(app):
    plant = app.topic("plant", Reading)
    app.window("a", topic=plant, key="temperature", time="ts", size="10s")
    app.window("b", topic=plant, key="wind", time="ts", size="1m", hop="10s", aggregate="max")
    assert list(app.agents) == ["windows-plant"]
    assert [table.name for table in app.agents["windows-plant"].tables] == ["windows-plant"]
    with pytest.raises(ConfigurationError, match="window 'c': topic plant: its time is '', and 'ts' for window 'a'"):
        app.window("c", topic=plant, key="wind", size="1m")

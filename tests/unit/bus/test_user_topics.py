"""Topics of users' own: what can be declared, and which partitions can be joined."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tpstream.app import App
from tpstream.bus import provision, topics
from tpstream.bus.agent import check_partitions
from tpstream.bus.table import Table
from tpstream.errors import ConfigurationError, TpstreamError
from tpstream.settings import Settings


class Reading(msgspec.Struct):
    celsius: float


class Odd(msgspec.Struct):
    what: Reading | dict[str, float]


@pytest.mark.parametrize(
    ("type_", "value", "data"),
    [
        (Reading, Reading(1.5), b'{"celsius":1.5}'),
        (dict, {"a": [1]}, b'{"a":[1]}'),
        (dict[str, float], {"a": 1.5}, b'{"a":1.5}'),
        (bytes, b"\xff", b"\xff"),
    ],
)
def test_a_topics_values_are_written_and_read(type_: Any, value: Any, data: bytes) -> None:
    topic = App().topic("plant.x.v1", type_)
    assert topic.encode(value) == data
    assert topic.decode(data) == value


def test_what_is_no_value_of_the_topic_is_named() -> None:
    with pytest.raises(TpstreamError, match=r"plant.x.v1: Expected `float`, got `str` - at `\$\[...\]`"):
        App().topic("plant.x.v1", dict[str, float]).decode(b'{"a": "b"}')


@pytest.mark.parametrize(
    ("name", "type_", "options", "why"),
    [
        ("tp.alarms.v1", Reading, {}, "tpstream's own: take it from `tpstream.topics`"),
        ("tp.mine", Reading, {}, r"names in tp\.\* and tpstream-\* are tpstream's own"),
        ("tpstream-process-x-changelog", Reading, {}, r"names in tp\.\*"),
        ("a b", Reading, {}, "a name is up to 249"),
        ("..", Reading, {}, "a name is up to 249"),
        ("", Reading, {}, "a name is up to 249"),
        ("x", str, {}, "should be a msgspec.Struct, dict or bytes"),
        ("x", "Reading", {}, "should be a msgspec.Struct, dict or bytes"),
        ("x", list[Reading], {}, "should be a msgspec.Struct, dict or bytes"),
        ("x", Odd, {}, "cannot be read from JSON: .*dict"),
        ("x", Reading, {"partitions": 0}, "partitions=0 is no number from 1"),
        ("x", Reading, {"partitions": "3"}, "partitions='3' is no number from 1"),
    ],
)
def test_what_cannot_be_declared(name: str, type_: Any, options: Any, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"topic .*{why}"):
        App().topic(name, type_, **options)


def test_a_topic_declared_twice_is_one_topic() -> None:
    app = App()
    topic = app.topic("x", Reading, partitions=3)
    assert app.topic("x", Reading, partitions=3) is topic
    for again in ({"partitions": 4}, {"partitions": 3, "compact": True}):
        with pytest.raises(ConfigurationError, match="topic x is declared twice"):
            app.topic("x", Reading, **again)  # type: ignore[arg-type]
    assert list(app.topics.values()) == [topic]


def test_partitions_that_are_joined_by_key_must_be_as_many() -> None:
    app = App()
    three, eight, own = app.topic("three", Reading, partitions=3), app.topic("eight", Reading), topics.uplink_telemetry

    async def handle(batch: Any) -> None: ...

    app.batch_agent(three, eight, own, topics.config_devices, name="free")(handle)
    app.batch_agent(eight, own, tables=(Table("a", Reading),), name="joined")(handle)
    check_partitions(app.agents.values(), 8)
    app.batch_agent(own, three, tables=(Table("b", Reading),), name="torn")(handle)
    with pytest.raises(
        ConfigurationError,
        match=r"'torn': topic three has 3 partitions .* of b, which have 8; .*--topic three --partitions 8`.*=3",
    ):
        check_partitions(app.agents.values(), 8)
    app.agents.pop("torn")
    app.batch_agent(app.topic("one", Reading, partitions=1), tables=(Table("c", Reading),), name="joined")(handle)
    with pytest.raises(ConfigurationError, match="'joined': topic one has 1"):
        check_partitions(app.agents.values(), 8)


@pytest.mark.parametrize(
    ("there", "wanted", "remedy"),
    [
        (3, 8, r"raise it by `kafka-topics.sh --bootstrap-server k:1 --alter --topic mine --partitions 8`.*, or "
               r"declare it with partitions=3 \(where .*TPSTREAM_PARTITIONS=3\)"),
        (12, 8, r"declare it with partitions=12 .*, or delete it: Kafka cannot lower the number"),
        (3, 5, r"raise it by .* --partitions 5`.*, or declare it with partitions=3$"),
    ],
)  # fmt: skip
def test_another_number_of_partitions_is_refused_with_what_mends_it(there: int, wanted: int, remedy: str) -> None:
    settings = Settings(kafka="k:1", partitions=8)
    with pytest.raises(ConfigurationError, match=f"mine has {there} partitions and should have {wanted}; {remedy}"):
        provision._check({"mine": there}, {"mine": (wanted, {})}, settings)

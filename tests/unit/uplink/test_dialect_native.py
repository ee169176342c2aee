"""Dialect `native`: topics to addresses, and who may listen to what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.uplink.dialects import (
    Address,
    What,
    address,
    device_of_filter,
    downlink_filters,
    may_subscribe,
    valid_number,
)

RESERVED = ["telemetry", "attributes", "event", "status", "command"]


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("devices/d1/telemetry", Address("d1", What.TELEMETRY)),
        ("devices/d1/attributes/7", Address("d1", What.ATTRIBUTES, "7")),
        ("devices/d1/attributes/", Address("d1", What.ATTRIBUTES)),
        ("devices/d1/attributes", Address("d1", What.ATTRIBUTES)),
        ("devices/d1/event/e-1", Address("d1", What.EVENT, "e-1")),
        ("devices/d1/command/response/c1", Address("d1", What.COMMAND_RESPONSE, "c1")),
        ("devices/d1/command/response", Address("d1", What.COMMAND_RESPONSE)),
        ("devices/d1/attributes/set/response/c1", Address("d1", What.ATTRIBUTES_SET_RESPONSE, "c1")),
        ("devices/d1/attributes/set", Address("d1", What.ATTRIBUTES, "set")),
        ("devices/status/d1", Address("d1", What.STATUS)),
        ("gateway/g1/telemetry", Address("g1", What.TELEMETRY, gateway=True)),
        ("gateway/g1/event/9", Address("g1", What.EVENT, "9", gateway=True)),
        ("gateway/g1/command/response/c1", Address("g1", What.COMMAND_RESPONSE, "c1", gateway=True)),
        ("devices/Gerät 7/telemetry", Address("Gerät 7", What.TELEMETRY)),
        ("devices/gateway/telemetry", Address("gateway", What.TELEMETRY)),
    ],
)
def test_known_topics(topic: str, expected: Address) -> None:
    assert address(topic) == expected


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "devices",
        "devices/telemetry",  # dialect thingspanel: no number
        "devices/telemetry/x",
        "devices/d1",
        "devices//telemetry",
        "devices/d1/telemetry/7",
        "devices/d1/telemetry/",
        "devices/d1/command",
        "devices/d1/command/7",
        "devices/command/d1/7",  # downlink
        "devices/d1/attributes/set/response/c1/more",
        "devices/$SYS/telemetry",
        "devices/status/telemetry",
        "gateway/status/g1",
        "/devices/d1/telemetry",
        "Devices/d1/telemetry",
        f"devices/{'x' * 129}/telemetry",
    ],
)
def test_unknown_topics(topic: str) -> None:
    assert address(topic) is None


@pytest.mark.parametrize("number", ["a", "0", "a" * 128, "ü" * 64, "a$b", "telemetry1", " "])
def test_numbers_that_are_valid(number: str) -> None:
    assert valid_number(number)


@pytest.mark.parametrize(
    "number",
    ["", "a/b", "a+", "#", "a\0", "$a", "a" * 129, "ü" * 65, "\ud800", *RESERVED],
)
def test_numbers_that_are_not(number: str) -> None:
    assert not valid_number(number)


@pytest.mark.parametrize(
    "filter",
    [
        *downlink_filters("d1"),
        "devices/command/d1/#",
        "devices/command/d1/abc",
        "devices/attributes/get/d1/#",
    ],
)
def test_a_device_may_hear_its_own_downlink(filter: str) -> None:
    assert may_subscribe(filter, "d1")
    assert not may_subscribe(filter, "d2")
    assert device_of_filter(filter) == "d1"


@pytest.mark.parametrize(
    "filter",
    [
        "#",
        "+/command/d1/+",
        "devices/#",
        "devices/+/d1/+",
        "devices/command/+/+",
        "devices/command/#",
        "devices/command/d1+/x",
        "devices/command/d1/+/+",
        "devices/command/d1/a+b",
        "devices/command/d1/#/x",
        "devices/attributes/get/d1/+",
        "devices/d1/telemetry",
        "devices/status/d1",
        "$share/g/devices/command/d1/+",
        "$SYS/#",
        "",
    ],
)
def test_a_device_may_hear_nothing_else(filter: str) -> None:
    assert not may_subscribe(filter, "d1")


def _matches(filter: str, topic: str) -> bool:
    wanted, has = filter.split("/"), topic.split("/")
    for n, segment in enumerate(wanted):
        if segment == "#":
            return len(has) >= n
        if n >= len(has) or segment not in ("+", has[n]):
            return False
    return len(wanted) == len(has)


_segment = st.sampled_from(
    ["devices", "command", "attributes", "get", "set", "d1", "d2", "+", "#", "response", "x", ""]
)


@given(st.lists(_segment, min_size=1, max_size=6))
def test_no_filter_reaches_another_devices_topics(segments: list[str]) -> None:
    filter = "/".join(segments)
    if may_subscribe(filter, "d1"):
        for other in downlink_filters("d2"):
            assert not _matches(filter, other.replace("+", "c7"))


@given(st.text(max_size=40))
def test_any_text_has_an_answer(text: str) -> None:
    for topic in (text, f"devices/{text}", f"devices/{text}/telemetry", f"devices/d/{text}"):
        found = address(topic)
        assert found is None or valid_number(found.device)
    device_of_filter(text)

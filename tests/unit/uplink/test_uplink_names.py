"""What topics say, remembered."""

import pytest

from tpstream.uplink import names
from tpstream.uplink.dialects import What


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(names, "known", {})


def test_a_topic_is_read_once():
    named = names.named(b"devices/d1/telemetry")
    assert (named.device, named.key, named.address) == ("d1", b"d1", None)
    assert names.named(b"devices/d1/telemetry") is named is names.known[b"devices/d1/telemetry"]


def test_only_telemetry_of_the_device_itself_needs_no_address():
    answer = names.named(b"devices/d1/command/response/c1")
    assert (answer.address.what, answer.address.message_id) == (What.COMMAND_RESPONSE, "c1")
    assert names.named(b"gateway/d1/telemetry").address.gateway


def test_a_topic_that_comes_but_once_takes_no_room():
    names.named(b"devices/d1/command/response/c1")
    assert not names.known


@pytest.mark.parametrize("topic", [b"", b"devices/d1/nonsense", b"devices/\xff\xff", b"\xff"])
def test_what_no_dialect_knows_has_no_name_and_takes_no_room(topic):
    assert names.named(topic) is None
    assert not names.known


def test_beyond_the_bound_it_begins_anew(monkeypatch):
    monkeypatch.setattr(names, "NAMES", 3)
    for n in range(4):
        names.named(b"devices/d%d/telemetry" % n)
    assert list(names.known) == [b"devices/d3/telemetry"]

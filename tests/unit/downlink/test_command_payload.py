"""What goes to the device, and what never can."""

import pytest

from tpstream.downlink.payload import Limits, attempts_of, expiry_of, json_of, objection, timeout_of, topic_of
from tpstream.messages import CommandRequest

LIMITS = Limits(30_000, 3, 3_600_000)


def request(id="a-1", device="d1", method="fan", params="", **more):
    return CommandRequest(id, device, method, 1000, params, **more)


def test_json():
    assert json_of(request(params='{"on": true}')) == b'{"method":"fan","params":{"on": true}}'
    assert json_of(request()) == b'{"method":"fan"}'
    assert topic_of("d1", "a-1") == "devices/command/d1/a-1"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (request(id="a/b"), "the id 'a/b' is not"),
        (request(id=""), "the id '' is not"),
        (request(id="a" * 37), "is not 1 to 36"),
        (request(device="a/#"), "'a/#' is no device number"),
        (request(method=""), "no method"),
        (request(params="{"), "params are not JSON"),
        (request(params="[" * 100_000), "params are not JSON"),
    ],
)
def test_what_can_never_be_sent(wrong, said):
    assert said in objection(wrong)
    assert objection(request(params="[1]")) == ""


def test_limits_hold_where_the_request_says_nothing_or_nonsense():
    assert (timeout_of(request(), LIMITS), attempts_of(request(), LIMITS), expiry_of(request(), LIMITS)) == (
        30_000,
        3,
        3_601_000,
    )
    told = request(timeout=0.5, attempts=1, expires_at=7)
    assert (timeout_of(told, LIMITS), attempts_of(told, LIMITS), expiry_of(told, LIMITS)) == (500, 1, 7)
    odd = request(timeout=-1.0, attempts=0)
    assert (timeout_of(odd, LIMITS), attempts_of(odd, LIMITS)) == (30_000, 1)

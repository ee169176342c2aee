"""How a command ends, over REST and `tpstream send`: done, refused, unanswered, to a device that nobody knows."""

from __future__ import annotations

import json
import time

import pytest
from parts.device import Device
from parts.whole import Platform

from tpstream.bus import topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_no_answer_in_time(greenhouse: Platform) -> None:
    device = Device(greenhouse, "silent-1", answer=lambda command: None)
    began = time.monotonic()
    id = greenhouse.command(device.number, "reboot", attempts=1, timeout=2)
    ended = greenhouse.ended(id)
    took = time.monotonic() - began
    assert (ended["state"], ended["attempts"]) == ("TIMED_OUT", 1)
    assert 1.9 < took < 5, "after its timeout, and soon after it, though the partition is quiet"
    (command,) = device.commands
    assert (command.id, command.payload) == (id, b'{"method":"reboot"}')
    states = [status.state.value for status in greenhouse.records(topics.command_status) if status.id == id]
    assert states[-2:] == ["DELIVERED", "TIMED_OUT"], states
    device.say({"result": 0}, topic=f"devices/silent-1/command/response/{id}")
    time.sleep(1)
    assert greenhouse.ended(id)["state"] == "TIMED_OUT", "the first end stays"
    device.close()


def test_a_device_that_is_away_is_sent_it_again_with_the_same_id(greenhouse: Platform) -> None:
    away = Device(greenhouse, "away-1")
    away.close()
    status = "SELECT argMax(online, ts) FROM device_status WHERE device = 'away-1'"
    greenhouse.wait(lambda: greenhouse.rows(status) == [(False,)])
    first = greenhouse.command("away-1", "reboot")
    second = greenhouse.command("away-1", "beep")
    time.sleep(1)
    back = Device(greenhouse, "away-1")
    assert greenhouse.ended(first)["state"] == greenhouse.ended(second)["state"] == "SUCCEEDED"
    assert [command.id for command in back.commands] == [first, second], "in order"
    back.close()


def test_send_says_of_a_device_that_is_offline_that_its_command_waits(greenhouse: Platform) -> None:
    away = Device(greenhouse, "away-2")
    away.say({"temperature": 20})
    away.close()
    status = "SELECT argMax(online, ts) FROM device_status WHERE device = 'away-2'"
    greenhouse.wait(lambda: greenhouse.rows(status) == [(False,)])
    done = greenhouse.run("send", "away-2", "valve", '{"open": true}', "--timeout", "0.5", "--attempts", "1")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "still ENCODED" in last
    assert "was not sent yet: away-2 is offline. It stays queued until it expires" in last
    back = Device(greenhouse, "away-2")
    greenhouse.wait(lambda: back.commands)
    back.close()


@pytest.mark.parametrize("result", [1, "1", 7, None])
def test_refused(greenhouse: Platform, result: object) -> None:
    number = f"stubborn-{result}"
    device = Device(greenhouse, number, answer=lambda command: {"result": result, "message": "not today"})
    ended = greenhouse.ended(greenhouse.command(number, "reboot", params={"now": True}))
    assert ended["state"] == "REFUSED"
    assert "not today" in ended["result"], "its text is kept"
    assert device.commands[0].payload == b'{"method":"reboot","params":{"now":true}}'
    device.close()


def test_an_unknown_devices_command_ends_in_time(greenhouse: Platform) -> None:
    ended = greenhouse.ended(greenhouse.command("never-seen", "reboot", attempts=1, timeout=1))
    assert ended["state"] == "TIMED_OUT"


def test_only_who_got_it_can_answer_it(greenhouse: Platform) -> None:
    device, other = Device(greenhouse, "asked-1", answer=lambda command: None), Device(greenhouse, "other-1")
    id = greenhouse.command(device.number, "reboot", attempts=1, timeout=3)
    greenhouse.wait(lambda: device.commands)
    other.say({"result": 0}, topic=f"devices/other-1/command/response/{id}")
    assert greenhouse.ended(id)["state"] == "TIMED_OUT"
    letters = "SELECT reason FROM dead_letters WHERE device = 'other-1'"
    greenhouse.wait(lambda: greenhouse.rows(letters) == [("response",)])
    device.close()
    other.close()


def test_exit_codes_of_send(greenhouse: Platform) -> None:
    """0: the device did it; 1: it did not; 2: the command line is wrong."""
    answers = {"fan": {"result": 0}, "reboot": {"result": 1, "message": "busy"}, "sleep": None}
    device = Device(
        greenhouse, "shell-2", answer=lambda command: answers[json.loads(command.payload)["method"]]
    )  # fmt: skip
    done = greenhouse.run("send", "shell-2", "fan", '{"on": true}')
    assert (done.returncode, done.stdout.splitlines()[-1].split()[0]) == (0, "SUCCEEDED"), done.stderr
    refused = greenhouse.run("send", "shell-2", "reboot", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["state"] == "REFUSED"
    silent = greenhouse.run("send", "shell-2", "sleep", "--timeout", "1", "--attempts", "1")
    assert (silent.returncode, silent.stdout.splitlines()[-1].split()[0]) == (1, "TIMED_OUT")
    for wrong in (["shell-2", "fan", "{on"], ["shell-2", "fan", "[1]"], ["a/b", "fan"], ["shell-2"]):
        done = greenhouse.run("send", *wrong)
        assert done.returncode == 2, (wrong, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    assert [json.loads(command.payload)["method"] for command in device.commands] == ["fan", "reboot", "sleep"]
    device.close()

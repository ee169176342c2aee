"""One calm line per event; no stack trace unless somebody debugs."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from tpstream.errors import ConfigurationError
from tpstream.observability import logs


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs._NOISE}
    yield
    root.handlers[:], root.level = handlers, level
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def test_a_line_has_time_level_part_and_message() -> None:
    stream = io.StringIO()
    logs.set_up({}, stream)
    logging.getLogger("tpstream.bus.lane").info("windows: %d partitions assigned", 8)

    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line.split()[2:] == ["info", "lane", "windows:", "8", "partitions", "assigned"]
    assert line.split()[1].endswith("Z")


def test_an_exception_is_one_line_and_its_trace_only_at_debug() -> None:
    for level, traced in (("info", False), ("debug", True)):
        stream = io.StringIO()
        logs.set_up({"TPSTREAM_LOG": level}, stream)
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            logging.getLogger("tpstream.x").exception("it failed\nbadly")
        text = stream.getvalue()
        assert "it failed ⏎ badly (ValueError: first)" in text.splitlines()[0]
        assert ("Traceback" in text) is traced


def test_a_repeated_line_comes_once_except_at_debug() -> None:
    for level, lines in (("info", 1), ("debug", 3)):
        stream = io.StringIO()
        logs.set_up({"TPSTREAM_LOG": level}, stream)
        for node in range(3):
            logging.getLogger("aiokafka").error("Unable connect to node with id %s", node)
        assert stream.getvalue().count("\n") == lines


def test_libraries_are_silenced_below_their_threshold() -> None:
    stream = io.StringIO()
    logs.set_up({}, stream)
    logging.getLogger("faust.app").info("chatter")
    logging.getLogger("aiokafka.conn").warning("chatter")
    assert stream.getvalue() == ""


def test_an_unknown_level_names_the_levels() -> None:
    with pytest.raises(ConfigurationError, match=r"TPSTREAM_LOG='loud' is no level; one of debug, info"):
        logs.set_up({"TPSTREAM_LOG": "loud"})

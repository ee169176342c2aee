"""What becomes of rows that a sink will never take."""

from types import SimpleNamespace

from tpstream.bus import topics
from tpstream.errors import Rejected
from tpstream.observability import metrics
from tpstream.storage.rejected import dead_letters_of

ROW = {
    "table": "telemetry",
    "error": "no member of the Enum",
    "device": "d-7",
    "kind": "wrong",
    "source_life": "00ff",
    "source_partition": 3,
    "source_offset": 44,
    "source_index": 2,
}


def letters(name, *rows):
    found = list(dead_letters_of(SimpleNamespace(name=name), Rejected("store: refused", rows)))
    return found, [topics.dead_letters.decode(record.value) for record in found]


def test_a_refused_row_is_a_dead_letter_of_its_device_with_its_source():
    (record,), (letter,) = letters("telemetry", ROW)
    assert (record.key, record.partition) == (b"d-7", None)
    assert (letter.device, letter.stage, letter.detail) == ("d-7", "telemetry", "no member of the Enum")
    assert (letter.source_life, letter.source_partition, letter.source_offset, letter.source_index) == (
        "00ff",
        3,
        44,
        2,
    )
    assert b'"kind":"wrong"' in letter.payload


def test_a_row_that_is_refused_again_is_the_same_letter():
    _, (first,) = letters("telemetry", ROW)
    _, (again,) = letters("telemetry", ROW | {"error": "worded otherwise"})
    _, (other,) = letters("telemetry", ROW | {"source_offset": 45})
    assert first.id == again.id != other.id


def test_a_refused_dead_letter_ends_in_the_log_and_a_count(caplog):
    count = metrics.DEAD_LETTERS.labels("dead_letters", "agent")
    before = count._value.get()
    assert letters("dead_letters", ROW, ROW) == ([], [])
    assert count._value.get() == before + 2
    assert sum("a dead letter is lost" in record.message and "d-7" in record.message for record in caplog.records) == 2


def test_rows_that_are_no_columns_are_kept_as_they_are():
    _, (letter,) = letters("tp.windows.v1", ("tp.windows.v1", b"\xff"))
    assert (letter.device, letter.source_partition) == ("", -1)

"""Tables for people."""

from __future__ import annotations

import pytest

from tpstream.cli import output


def test_numbers_stand_to_the_right_and_columns_are_as_wide_as_they_must(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("device", "value"), [("d1", 1.5), ("greenhouse", 22), ("x", None)])
    assert capsys.readouterr().out.splitlines() == [
        "device      value",
        "d1            1.5",
        "greenhouse     22",
        "x",
    ]


def test_a_table_of_nothing_is_its_headings(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("a", "b"), [])
    assert capsys.readouterr().out == "a  b\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), ("a\nb\x1b[2J", "a·b·[2J"), ("ä", "ä"), ("x" * 10, "xxxx…")],
)
def test_a_cell_is_one_line_and_commands_no_terminal(value: object, text: str) -> None:
    assert output.cell(value, 5 if value == "x" * 10 else None) == text

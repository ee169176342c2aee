"""A partition's state on disk: what is written is there again, with how far the changelogs were."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rocksdict import WriteBatch

from tpstream.bus.position import Life
from tpstream.bus.state import PartitionState, StateFolder, pin_partitions
from tpstream.errors import ConfigurationError, TpstreamError

LIFE, NEXT = Life(bytes([1] * 16)), Life(bytes([2] * 16))


def test_values_and_offsets_come_back_together(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {"a": {"k": b"1", "l": b"2"}, "ab": {"k": b"3"}}, {"a": 5, "ab": 1})
    state.write(LIFE, {"a": {"l": None}}, {"a": 7})
    state.close()
    again = PartitionState(tmp_path / "0")
    assert dict(again.values("a")) == {"k": b"1"}
    assert dict(again.values("ab")) == {"k": b"3"}
    assert (again.life, again.meta.offsets) == (LIFE, {"a": 7, "ab": 1})
    again.write(NEXT, {"a": {"m": b"4"}}, {"a": 1})
    assert again.meta.offsets == {"a": 1}, "offsets of an earlier life mean nothing"
    again.close()


def test_a_folder_in_use_is_an_error_that_says_so(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    with pytest.raises(TpstreamError, match="another program"):
        PartitionState(tmp_path / "0")
    state.close()


def test_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    pin_partitions(tmp_path / "s", 2)
    pin_partitions(tmp_path / "s", 2)
    with pytest.raises(ConfigurationError, match="TPSTREAM_PARTITIONS=2"):
        pin_partitions(tmp_path / "s", 8)


def test_each_worker_has_a_folder_of_its_own(tmp_path: Path) -> None:
    first, second = StateFolder(tmp_path, "g"), StateFolder(tmp_path, "g")
    assert (first.path.name, second.path.name) == ("g", "g@2")
    named = StateFolder(tmp_path, "g", "b")
    assert named.path.name == "g@b"
    with pytest.raises(ConfigurationError, match="TPSTREAM_INSTANCE"):
        StateFolder(tmp_path, "g", "b")
    first.close()
    assert StateFolder(tmp_path, "g").path.name == "g"


def test_who_is_given_a_name_or_loses_it_goes_on_with_its_state(tmp_path: Path) -> None:
    for instance in ("", "a", "", "a"):
        folder = StateFolder(tmp_path, "g", instance)
        assert folder.path.name == "g"
        folder.close()
    first, second = StateFolder(tmp_path, "g", "a"), StateFolder(tmp_path, "g", "b")
    assert (first.path.name, second.path.name) == ("g", "g@b")
    with pytest.raises(ConfigurationError, match="TPSTREAM_INSTANCE"):
        StateFolder(tmp_path, "g", "a")
    first.close()
    second.close()
    assert [StateFolder(tmp_path, "g", name).path.name for name in "ba"] == ["g@b", "g"], "in whatever order they come"


def test_values_of_an_earlier_life_are_owed_to_the_next_until_they_are_written_there(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {"a": {"k": b"1", "l": b"1", "m": b"1"}, "ab": {"k": b"1"}}, {"a": 5}, {"a": 9})
    assert (state.owes, state.stamp) == (False, 9)
    state.write(NEXT, {"a": {"l": b"2", "m": None}}, {"a": 1}, {"a": 1})
    state.close()
    state = PartitionState(tmp_path / "0")
    assert (state.owes, state.stamp, dict(state.values("a"))) == (True, 1, {"l": b"2"})
    state.adopt()
    assert (dict(state.values("a")), dict(state.values("ab"))) == ({"k": b"1", "l": b"2"}, {"k": b"1"})
    assert (dict(state.owed("a")), dict(state.owed("ab"))) == ({"k": b"1"}, {"k": b"1"})
    state.close()
    state = PartitionState(tmp_path / "0")
    assert state.owes, "who could not write them owes them still"
    state.settled()
    assert (state.owes, dict(state.owed("a")), dict(state.values("a"))) == (False, {}, {"k": b"1", "l": b"2"})
    state.close()


@pytest.mark.parametrize(("later", "kept"), [(-1, True), (0, False), (1, False)])
def test_values_of_an_earlier_life_that_another_owner_has_written_as_late_are_forgotten(
    tmp_path: Path, later: int, kept: bool
) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {"a": {"k": b"1", "l": b"1"}}, {"a": 5})
    written_at = state.meta.written_at
    state.enter(NEXT)
    state.adopt()  # and could not write them; then another became the owner
    state.write(NEXT, {"a": {"l": b"2"}}, {"a": 1}, settled_at=written_at + later)
    state.adopt()
    assert dict(state.values("a")) == ({"k": b"1", "l": b"2"} if kept else {"l": b"2"})
    assert (state.owes, dict(state.owed("a"))) == (kept, {"k": b"1"} if kept else {})
    state.close()


def test_who_dies_while_values_are_set_aside_goes_on_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tpstream.bus.state._AT_ONCE", 3)
    values = {f"k{n}": b"%d" % n for n in range(10)}
    for dies_at in range(1, 9):
        state = PartitionState(tmp_path / str(dies_at))
        state.write(LIFE, {"a": values}, {"a": 5})
        written, write = 0, state._write

        def dying(*args: Any, dies_at: int = dies_at, write: Any = write) -> None:
            nonlocal written
            written += 1
            if written == dies_at:
                raise KeyboardInterrupt
            write(*args)

        monkeypatch.setattr(state, "_write", dying)
        with contextlib.suppress(KeyboardInterrupt):
            state.enter(NEXT)
        state.close()
        state = PartitionState(tmp_path / str(dies_at))
        state.enter(NEXT)
        assert (dict(state.values("a")), dict(state.owed("a"))) == ({}, values)
        state.adopt()
        assert dict(state.values("a")) == values
        state.close()


def test_of_a_folder_of_an_earlier_tpstream_that_owes_values_all_are_set_aside(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {"a": {"k": b"1"}}, {"a": 5})
    state._write(WriteBatch(raw_mode=True), msgspec.structs.replace(state.meta, owing=True))
    state.enter(LIFE)
    assert (dict(state.values("a")), dict(state.owed("a")), state.meta.offsets) == ({}, {"k": b"1"}, {})
    state.close()


def test_state_older_than_the_changelogs_word_of_deletions_begins_empty(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {"a": {"k": b"1"}}, {"a": 5})
    state.close()
    for life, deletions, kept in ((LIFE, 10**9, True), (NEXT, 0, True), (LIFE, -(10**9), False)):
        state = PartitionState.open(tmp_path / "0", life, deletions)
        assert (dict(state.values("a")) == {"k": b"1"}) is kept
        state.close()


def test_keys_written_out_of_turn_are_kept_until_their_owner_has_written_them(tmp_path: Path) -> None:
    state = PartitionState(tmp_path / "0")
    state.write(LIFE, {}, {"a": 5}, {}, {"a": {"k"}})
    state.write(LIFE, {}, {"a": 6}, {}, {"a": {"j"}, "b": {"l"}})
    state.close()
    state = PartitionState(tmp_path / "0")
    assert state.meta.out_of_turn == {"a": ["j", "k"], "b": ["l"]}
    state.write(LIFE, {"a": {"k": b"1"}}, {"a": 7})
    assert state.meta.out_of_turn == {}
    state.close()

"""What a user configured, in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tpstream.embedded.kept import KEPT, Kept
from tpstream.errors import TpstreamError

RULES, RELEASES = "tp.config.rules.v1", "tp.config.releases.v1"
steps = st.lists(st.tuples(st.sampled_from(KEPT), st.binary(max_size=3), st.none() | st.binary()), max_size=30)


def reloaded(kept: Kept) -> Kept:
    other = Kept(kept.folder)
    other.load()
    return other


@settings(max_examples=25, deadline=None)  # each writes files through to the disk
@given(steps)
def test_the_newest_record_of_each_key_comes_back(
    tmp_path_factory: pytest.TempPathFactory, taken: list[tuple[str, bytes, bytes | None]]
) -> None:
    kept = Kept(tmp_path_factory.mktemp("kept"))
    newest: dict[tuple[str, bytes], bytes] = {}
    for n, (topic, key, value) in enumerate(taken):
        kept.take(topic, key, value, n, (("tp", b"\x00\xff"),))
        if value is None:
            newest.pop((topic, key), None)
        else:
            newest[topic, key] = value
        if n % 3 == 0:
            kept.write(kept.drain())
    kept.write(kept.drain())
    again = reloaded(kept)
    assert again.records == kept.records
    assert {(t, k): r.value for t, records in again.records.items() for k, r in records.items()} == newest


def test_what_was_put_back_and_read_again_is_no_change(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.take(RULES, b"hot@1", b"{}", 1)
    kept.write(kept.drain())
    kept.take(RULES, b"hot@1", b"{}", 1)
    assert not kept.changed


def test_a_release_is_put_back_after_the_documents_that_it_names() -> None:
    assert KEPT[-1] == RELEASES


def test_what_could_not_be_written_is_written_next_time(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.take(RULES, b"hot@1", b"{}", 1)
    kept.again(kept.drain())
    assert set(kept.drain()) == {RULES}


@pytest.mark.parametrize("content", [b"", b"{", b'{"format":99,"topic":"x","records":[]}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / f"{RULES}.json").write_bytes(content)
    with pytest.raises(TpstreamError, match=r"tp\.config\.rules\.v1\.json: "):
        Kept(tmp_path).load()

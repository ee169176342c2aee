"""What says which life the topics are in, and what does not."""

from __future__ import annotations

import pytest

from tpstream.bus import topics
from tpstream.bus.life import newest
from tpstream.messages import LifeRecord
from tpstream.testing import FakeRecord

FIRST, SECOND = LifeRecord("1" * 32, 5, 8), LifeRecord("2" * 32, 6, 8)


def records(*values: bytes | None) -> list[FakeRecord]:
    return [FakeRecord(value, n) for n, value in enumerate(values)]


def test_the_last_one_counts() -> None:
    assert newest(records(topics.life.encode(FIRST), topics.life.encode(SECOND))) == SECOND
    assert newest([]) is None


@pytest.mark.parametrize(
    "value", [None, b"", b"\xff", b"{}", b"null", b'{"id":"x","created_at":1,"partitions":1}', b'{"id":5}']
)
def test_what_somebody_else_wrote_says_nothing(value: bytes | None) -> None:
    assert newest(records(topics.life.encode(FIRST), value)) == FIRST
    assert newest(records(value)) is None

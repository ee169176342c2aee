"""Keys go to the partitions to which Kafka's own clients send them."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import murmur2 as reference
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus import partitioner
from tpstream.bus.partitioner import Partitioner, murmur2, partition_of


@given(st.binary(max_size=40))
def test_the_hash_is_kafkas(data: bytes) -> None:
    assert murmur2(data) == reference(data) & 0xFFFFFFFF


# As in the tests of Kafka's Java client.
@pytest.mark.parametrize(("key", "value"), [(b"21", -973932308), (b"foobar", -790332482), (b"abc", 479470107)])
def test_the_hash_is_the_java_clients(key: bytes, value: int) -> None:
    assert murmur2(key) == value & 0xFFFFFFFF


def test_no_more_keys_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioner, "CACHED", 10)
    one = Partitioner(8)
    assert [one[b"%d" % n] for n in range(100)] == [partition_of(b"%d" % n, 8) for n in range(100)]
    assert len(one) <= 10

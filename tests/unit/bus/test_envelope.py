"""The `tp` headers: what goes in comes out, and nothing newer or torn is guessed at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tpstream.bus.batch import kind_of
from tpstream.bus.envelope import DerivedHeader, Identity, Kind, RawHeader, Refusal, WayIn
from tpstream.bus.position import Life, Position
from tpstream.errors import TpstreamError
from tpstream.testing import FakeRecord

u64 = st.integers(0, 2**64 - 1)
raw_headers = st.builds(
    RawHeader,
    kind=st.sampled_from(Kind),
    qos=st.integers(0, 2),
    dup=st.booleans(),
    retained=st.booleans(),
    way_in=st.sampled_from(WayIn),
    identity=st.sampled_from(Identity),
    refusal=st.sampled_from(Refusal),
    incarnation=u64,
    sequence=u64,
    session=u64,
    packet_id=st.integers(0, 65535),
)
positions = st.builds(
    Position,
    life=st.binary(min_size=16, max_size=16).map(Life),
    partition=st.integers(0, 2**32 - 1),
    offset=u64,
    item=st.integers(0, 2**32 - 1),
)


@given(raw_headers)
def test_raw_header_round_trip(header: RawHeader) -> None:
    assert RawHeader.unpack(header.pack()) == header


@given(st.builds(DerivedHeader, kind=st.sampled_from(Kind), position=positions, origin=positions))
def test_derived_header_round_trip(header: DerivedHeader) -> None:
    data = header.pack()
    assert DerivedHeader.unpack(data) == header
    assert kind_of(FakeRecord(b"", headers=(("tp", data),))) is header.kind


@given(st.binary(max_size=80))
def test_other_bytes_are_refused(data: bytes) -> None:
    for kind in (RawHeader, DerivedHeader):
        try:
            kind.unpack(data)
        except (TpstreamError, ValueError):
            continue


def test_a_newer_version_is_refused_by_name() -> None:
    data = b"\x02" + RawHeader(Kind.TICK).pack()[1:]
    with pytest.raises(TpstreamError, match="newer than this worker"):
        RawHeader.unpack(data)


@given(positions, positions)
def test_identities_differ_where_positions_differ(one: Position, other: Position) -> None:
    if one[1:] != other[1:]:
        assert one.identity() != other.identity()

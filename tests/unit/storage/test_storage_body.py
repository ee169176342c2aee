"""Bodies of the embedded store's HTTP interface: where the rows begin, and how they are unpacked."""

import gzip
import zlib

import lz4.frame
import pytest
from backports import zstd

from tpstream.embedded.store.body import Body, is_insert, split_insert
from tpstream.embedded.store.faults import Fault


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (b"INSERT INTO t FORMAT Native\nrows", (b"INSERT INTO t ", "Native", 28)),
        (b"INSERT INTO t (a) FORMAT CSV \r\nrows", (b"INSERT INTO t (a) ", "CSV", 31)),
        (b"insert into t format csv", (b"insert into t ", "csv", 24)),
        (b"INSERT INTO t VALUES ('FORMAT Native\nx')", None),
        (b"INSERT INTO t FORMAT Values (1)", None),
        (b"INSERT INTO t SELECT 1 FORMAT CSV\n", None),
        (b"INSERT INTO `FORMAT CSV\n` FORMAT TSV\nx", (b"INSERT INTO `FORMAT CSV\n` ", "TSV", 37)),
        (b"INSERT INTO t -- FORMAT CSV\n FORMAT TSV\nx", (b"INSERT INTO t -- FORMAT CSV\n ", "TSV", 40)),
        (b"INSERT INTO t /* FORMAT CSV\n */ VALUES (1)", None),
    ],
)
def test_where_the_rows_begin(statement, expected):
    assert split_insert(statement) == expected


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (b"INSERT INTO t", True),
        (b" -- a comment\n/* another */ insert into t", True),
        (b"SELECT 'INSERT INTO'", False),
        (b"INSERTS", False),
    ],
)
def test_what_an_insert_is(statement, expected):
    assert is_insert(statement) is expected


TEXT = b"0123456789" * 1000


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("", TEXT),
        ("gzip", gzip.compress(TEXT[:500]) + gzip.compress(TEXT[500:])),
        ("deflate", zlib.compress(TEXT)),
        ("lz4", lz4.frame.compress(TEXT[:500]) + lz4.frame.compress(TEXT[500:])),
        ("zstd", zstd.compress(TEXT[:500]) + zstd.compress(TEXT[500:])),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_frames_in_pieces_of_any_size(encoding, packed, step):
    with Body(encoding) as body:
        for at in range(0, len(packed), step):
            body.feed(packed[at : at + step])
        body.end()
        assert body.all() == TEXT
        body.cut(9990)
        assert body.all() == b"0123456789"


@pytest.mark.parametrize("encoding", ["gzip", "lz4", "zstd"])
def test_torn_or_wrong_bodies_are_faults(encoding):
    packed = {"gzip": gzip.compress, "lz4": lz4.frame.compress, "zstd": zstd.compress}[encoding](TEXT)
    with Body(encoding) as body:
        body.feed(packed[:-5])
        with pytest.raises(Fault, match="cut off"):
            body.end()
    with Body(encoding) as body, pytest.raises(Fault, match="cannot be unpacked"):
        body.feed(b"this is not packed at all")


def test_an_unknown_encoding_is_a_fault():
    with pytest.raises(Fault, match="use gzip"):
        Body("br2")

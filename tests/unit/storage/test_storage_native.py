"""Columns in memory, and the bytes of ClickHouse's Native format."""

import numpy as np
import pytest
from clickhouse_connect.driver.query import QueryContext
from clickhouse_connect.driver.transform import NativeTransform
from hypothesis import given
from hypothesis import strategies as st

from tpstream.storage.native import Few, Texts, Writer, block

KINDS = {
    "few": ("LowCardinality(String)", st.text(max_size=5)),
    "text": ("String", st.text(max_size=200)),
    "time": ("DateTime64(3, 'UTC')", st.integers(-(10**12), 10**13)),
    "number": ("Nullable(Float64)", st.none() | st.floats(allow_nan=False)),
    "count": ("UInt64", st.integers(0, 2**64 - 1)),
    "place": ("UInt32", st.integers(0, 2**32 - 1)),
    "signed": ("Int64", st.integers(-(2**63), 2**63 - 1)),
    "flag": ("Bool", st.booleans()),
}
rows = st.lists(st.tuples(*(values for _, values in KINDS.values())), min_size=1, max_size=300)


def made(values):
    return block([kind for kind, _ in KINDS.values()], list(zip(*values, strict=True)), len(values))


class Source:
    """Bytes as clickhouse-connect reads them."""

    def __init__(self, data):
        self.gen, self.close = iter([data]), lambda: None


@given(rows=rows)
def test_a_block_says_what_went_into_it(rows):
    assert made(rows).rows() == rows


@given(rows=rows, data=st.data())
def test_a_cut_is_those_rows(rows, data):
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    part = made(rows).cut(start, stop)
    assert (part.rows(), part.size) == (rows[start:stop], stop - start)


@given(first=rows, second=rows)
def test_clickhouse_connect_reads_the_bytes_as_the_rows_that_they_were(first, second):
    from clickhouse_connect.driverc.buffer import ResponseBuffer

    writer = Writer([(name, kind) for name, (kind, _) in KINDS.items()], "acme")
    data = b"".join(writer.bytes_of(made(values)) for values in (first, second))
    context = QueryContext(query_formats={"DateTime*": "int"})
    result = NativeTransform().parse_response(ResponseBuffer(Source(data)), context)
    assert list(result.column_names) == ["tenant", *KINDS]
    got = [tuple(row) for row in result.result_rows]
    assert [row[1:] for row in got] == first + second
    assert {row[0] for row in got} == {"acme"}


@pytest.mark.parametrize(("distinct", "width"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_places_are_as_wide_as_there_are_words(distinct, width):
    few = Few.of([f"w{n % distinct}" for n in range(70_000)])
    assert (len(few.words), few.places.itemsize) == (distinct, width)
    assert few.words[few.places[69_999]] == f"w{69_999 % distinct}"


def test_texts_that_are_all_empty_take_a_byte_each_in_the_insert_and_none_in_memory():
    writer = Writer([("t", "String")], "")
    assert writer.bytes_of(block(["String"], [Texts(None, 3)], 3)) == writer.bytes_of(block(["String"], [[""] * 3], 3))


@pytest.mark.parametrize(
    ("kind", "value"), [("UInt64", -1), ("UInt32", 2**32), ("Int64", 2**63), ("DateTime64(3, 'UTC')", None)]
)
def test_a_value_that_does_not_fit_is_an_error_and_not_another_value(kind, value):
    with pytest.raises((OverflowError, TypeError)):
        block([kind], [[value]], 1)


def test_a_row_of_telemetry_is_small_in_memory():
    from tpstream.messages import Point, Telemetry
    from tpstream.storage import columns

    messages = [Telemetry(f"d{n % 100}", (Point("a", n, 1.0), Point("b", n, 2.0))) for n in range(1000)]
    made = columns.telemetry(messages, [(b"1" * 16, 0, n, 0) for n in range(1000)], [1] * 1000)
    taken = sum(
        column.nbytes for part in made.columns for column in (part if isinstance(part, tuple) else (part,))
        if isinstance(column, np.ndarray)
    )  # fmt: skip
    assert taken / made.size < 60

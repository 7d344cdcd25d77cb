"""Parquet files of given rows, read with pyarrow."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import Document, Tally
from stream_app.exports.formats.parquet import writer as parquet_arrow
from stream_app.exports.formats.parquet.format import ParquetFormat, decimal_type
from stream_app.exports.formats.parquet.reader import arrow_type
from streaming_exporter.events import Options

ID = Column("id", "bigint", "int8", Kind.INTEGER, nullable=False)
NOTE = Column("note", "text", "text", Kind.TEXT)
AT = Column("at", "timestamp with time zone", "timestamptz", Kind.TIMESTAMPTZ)


def document(*columns: Column) -> Document:
    return Document("things", columns, Options(), datetime(2026, 1, 31, tzinfo=UTC))


def frame(*columns: Column, chunks: list[bytes], tally: Tally | None = None) -> pq.ParquetFile:
    content = b"".join(ParquetFormat().frame(iter(chunks), document(*columns), tally or Tally()))
    return pq.ParquetFile(io.BytesIO(content))


def numeric(declared: str) -> Column:
    return Column("n", declared, "numeric", Kind.NUMERIC)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("numeric(18,6)", (18, 6)),
        ("numeric(5,-2)", (7, 0)),
        ("numeric(3,5)", (5, 5)),
        ("numeric(38,10)", (38, 10)),
        ("numeric(39,10)", None),
        ("numeric", None),
        ("price", None),
    ],
)
def test_a_numeric_is_a_decimal_where_parquet_has_one(
    declared: str, expected: tuple[int, int] | None
) -> None:
    assert decimal_type(numeric(declared)) == expected
    assert arrow_type(numeric(declared)) == (pa.decimal128(*expected) if expected else pa.string())


def test_null_empty_and_escaped_texts_stay_apart() -> None:
    rows = [b"1\t\\N\n2\t\n", b'3\ta, "b"\\n\\\\nc\\\\\n4\tNULL\n5\tNaN\n6\t\\\\N\n7\t\\t\\r\\b\\f\\v\n']
    table = frame(ID, NOTE, chunks=rows).read()
    expected = [None, "", 'a, "b"\n\\nc\\', "NULL", "NaN", "\\N", "\t\r\b\f\v"]
    assert table.column("note").to_pylist() == expected
    assert table.schema.field("id").type == pa.int64()


@given(
    st.lists(st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_characters="\0"))), min_size=1)
)
def test_every_text(values: list[str | None]) -> None:
    lines = []
    for value in values:
        for character, name in zip("\\\b\f\n\r\t\v", "\\bfnrtv", strict=True):
            value = value and value.replace(character, "\\" + name)
        lines.append("\\N" if value is None else value)
    table = frame(NOTE, chunks=["".join(f"{line}\n" for line in lines).encode()]).read()
    assert table.column("note").to_pylist() == values


def test_a_value_that_does_not_fit_is_null_and_counted() -> None:
    tally = Tally()
    rows = [b"1\t2026-01-31 11:30:00.25+00\n", b"2\tinfinity\n3\t\\N\n4\t20000-01-01 00:00:00+00\n"]
    file = frame(ID, AT, chunks=[*rows, b"5\t0044-03-15 00:00:00+00 BC\n"], tally=tally)
    quarter = datetime(2026, 1, 31, 11, 30, 0, 250_000, UTC)
    assert file.read().column("at").to_pylist() == [quarter, None, None, None, None]
    assert tally == Tally(5, tally.warnings)
    assert tally.warnings == {"unrepresentable_values": 3}


def test_an_unreadable_value_is_an_error() -> None:
    with pytest.raises(pa.ArrowInvalid):
        frame(ID, AT, chunks=[b"x\t\\N\n"])


def test_decimals_keep_every_digit() -> None:
    chunks = [b"99999999999999999999999999999999999.123\n-0.001\nNaN\n"]
    values = frame(numeric("numeric(38,3)"), chunks=chunks).read().column("n").to_pylist()
    assert values == [Decimal("99999999999999999999999999999999999.123"), Decimal("-0.001"), None]


def test_no_rows_leave_the_schema_and_the_metadata() -> None:
    file = frame(ID, AT, chunks=[])
    assert file.metadata.num_rows == 0
    assert file.schema_arrow.field("at").type == pa.timestamp("us", "UTC")
    assert file.metadata.metadata[b"dataset"] == b"things"
    assert file.metadata.metadata[b"as_of"] == b"2026-01-31T00:00:00+00:00"


def test_row_groups_are_bounded_by_rows_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_arrow, "BATCH_BYTES", 1_000)
    monkeypatch.setattr(parquet_arrow, "ROW_GROUP_ROWS", 100)
    short = frame(
        ID, chunks=[b"".join(b"%d\n" % n for n in range(start, start + 10)) for start in range(0, 1000, 10)]
    )
    assert short.read().column("id").to_pylist() == list(range(1000))
    assert max(short.metadata.row_group(n).num_rows for n in range(short.num_row_groups)) <= 100
    monkeypatch.setattr(parquet_arrow, "ROW_GROUP_BYTES", 50_000)
    long = frame(NOTE, chunks=[b"x" * 20_000 + b"\n"] * 10)
    assert long.num_row_groups == 4


def test_bytes_are_yielded_while_rows_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_arrow, "BATCH_BYTES", 1_000)
    monkeypatch.setattr(parquet_arrow, "ROW_GROUP_BYTES", 1_000)
    chunks = iter([b"x" * 2_000 + b"\n"] * 100)
    next(ParquetFormat().frame(chunks, document(NOTE), Tally()))
    assert len(list(chunks)) > 95


def test_an_error_of_the_source_passes() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"1\n"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError, match="gone"):
        list(ParquetFormat().frame(chunks(), document(ID), Tally()))

"""Parquet: PostgreSQL writes text, and Arrow converts it to typed columns and encodes them.

=========================  ================================================================
PostgreSQL                 Parquet
=========================  ================================================================
boolean, integers, oid     BOOLEAN, INT of 16, 32 or 64 bits (oid: 64)
real, double precision     FLOAT, DOUBLE
numeric(p,s)               DECIMAL of that precision; NaN becomes null and is counted
money                      DECIMAL(19,2)
numeric, precision > 38    text, since not every reader takes longer decimals
date, time, timestamp      DATE, TIME, TIMESTAMP in microseconds; what the years 1 to 9999
                           or a day do not hold (infinity, 24:00) becomes null and is counted
timestamp with time zone   the same, adjusted to UTC, whatever the time zone of the file is
bytea                      BYTE_ARRAY
arrays                     LIST of texts; an inner array is the JSON of one
everything else            text: json and uuid as they are, interval as ISO 8601
=========================  ================================================================
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, literal, literal_column, select

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, CopySelect, Document, Format, Tally, cell
from stream_app.exports.formats.rendering import array_texts_sql, as_text, column_sql
from streaming_exporter.events import Options

MAX_PRECISION = 38
"""Beyond it programs such as DuckDB read a DECIMAL as a double and lose digits, or reject the file."""


def decimal_type(item: Column) -> tuple[int, int] | None:
    """Return precision and scale of the DECIMAL for a numeric column, or ``None`` if none can hold it.

    Parquet demands 0 <= scale <= precision.
    """
    if item.kind is not Kind.NUMERIC or item.precision is None:
        return None
    precision, scale = item.precision
    precision, scale = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
    return (precision, scale) if precision <= MAX_PRECISION else None


def typed_values(columns: Iterable[Column]) -> Iterator[ColumnElement[Any]]:
    """Return each column in the form that :class:`~.reader.CopyReader` expects."""
    return map(_value, columns)


def _value(item: Column) -> ColumnElement[Any]:
    value = cell(item)
    match item.kind:
        case Kind.BOOLEAN | Kind.DATE | Kind.TIME | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return value
        case Kind.BYTES:
            return func.encode(value, literal("hex"))
        case Kind.ARRAY if item.data_type.element is not None:
            texts: ColumnElement[Any] = literal_column(
                array_texts_sql(column_sql(item), item.data_type.element)
            )
            return cast(func.to_json(texts), Text)
    return as_text(item)


class ParquetFormat(Format):
    """The format ``parquet``. It needs the extra of the same name."""

    name = "parquet"
    extension = "parquet"
    media_type = "application/vnd.apache.parquet"
    description = "Parquet, for data tools"
    own_options = frozenset()
    unique_titles = True
    row_bytes = 2 * 2**20  # Arrow holds a row group several times

    def copy_select(self, columns: Sequence[Column], options: Options) -> CopySelect:
        """Return a SELECT for COPY's text format, which costs the database least."""
        values = typed_values(columns)
        return CopySelect(select(*values).select_from(ROWS), {"format": "text"})

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Yield full row groups, then the footer. Arrow works without the interpreter's lock."""
        # Arrow is large, and the API only lists the formats.
        from stream_app.exports.formats.parquet.writer import encode

        yield from encode(chunks, document, tally)

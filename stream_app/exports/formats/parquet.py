"""Parquet: PostgreSQL writes text, Arrow reads it into typed columns and encodes them.

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
timestamp with time zone   the same, adjusted to UTC
bytea                      BYTE_ARRAY
arrays                     LIST of texts; an inner array is the JSON of one
everything else            text: json and uuid as they are, interval as ISO 8601
=========================  ================================================================
"""

from collections.abc import Iterator, Sequence

from sqlalchemy import select

from stream_app.events import Options
from stream_app.exports.columns import Column
from stream_app.exports.formats.base import ROWS, Document, Format, Projection, Tally
from stream_app.exports.formats.parquet_sql import typed_values


class ParquetFormat(Format):
    """``parquet``; needs the extra of the same name."""

    name = "parquet"
    extension = "parquet"
    media_type = "application/vnd.apache.parquet"
    description = "Apache Parquet with typed columns, compressed by zstd"
    row_bytes = 2 * 2**20  # Arrow holds a row group several times

    def project(self, columns: Sequence[Column], options: Options) -> Projection:
        """COPY's own text format, which costs the database least."""
        values = typed_values(columns)
        return Projection(select(*values).select_from(ROWS), {"format": "text"})

    def frame(self, chunks: Iterator[bytes], document: Document, tally: Tally) -> Iterator[bytes]:
        """Row groups as they fill up, then the footer. Arrow works without the interpreter's lock."""
        # Whoever only lists formats, like the API, need not load Arrow.
        from stream_app.exports.formats.parquet_arrow import encode

        yield from encode(chunks, document, tally)

"""The search for the row that exceeds the limit for the size of one row."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, literal_column, select
from sqlalchemy.dialects.postgresql import array

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, cell
from stream_app.exports.formats.rendering import as_text
from stream_app.exports.query import RowQuery
from stream_app.exports.sql_text import render
from streaming_exporter.errors import Rejected, value_too_large

SHOWN_KEY = 100
"""Characters of a key that an error shows."""

_SMALL = {
    Kind.BOOLEAN, Kind.INTEGER, Kind.FLOAT, Kind.UUID, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ,
    Kind.INTERVAL, Kind.ENUM,
}  # fmt: skip


def largest_row_query(rows: RowQuery, key: Sequence[Column]) -> str:
    """Return the query for the largest of ``rows``.

    Its columns are ``key``, the texts of the key columns, and ``sizes``, the bytes of each column. It reads
    all rows, but not the values that PostgreSQL stores outside of them (TOAST).
    """
    names: list[ColumnElement[str]] = [func.left(cast(cell(item), Text), SHOWN_KEY) for item in key]
    sizes = [_bytes(item) for item in rows.columns]
    key_texts: ColumnElement[Any] = array(names, type_=Text())
    columns: list[ColumnElement[Any]] = [key_texts.label("key"), array(sizes).label("sizes")]
    measured = select(*columns).select_from(ROWS).offset(0)
    return (
        f"WITH rows AS ({render(rows.select.order_by(None))})"
        f" SELECT key, sizes FROM ({render(measured)}) AS measured"
        " ORDER BY (SELECT sum(size) FROM unnest(sizes) AS size) DESC LIMIT 1"
    )


def row_too_large(
    rows: RowQuery,
    key: Sequence[Column],
    found: tuple[Sequence[str | None], Sequence[int]],
    limit: int,
    output: str,
) -> Rejected:
    """Return the error for the row that :func:`largest_row_query` has found: its key and its sizes."""
    values, sizes = found
    size, number = max((size, number) for number, size in enumerate(sizes))
    names = " and ".join(f"{item.name} is {value!r}" for item, value in zip(key, values, strict=True))
    return value_too_large(
        rows.columns[number].name, f"the row whose {names}" if names else "a row", size, limit, output
    )


def _bytes(item: Column) -> ColumnElement[int]:
    """Return SQL for the bytes of the value as text. For kinds of small values it is 0."""
    if item.kind in _SMALL:
        return literal_column("0::bigint")
    value = cell(item) if item.kind in (Kind.BYTES, Kind.TEXT) else cast(as_text(item), Text)
    return func.coalesce(func.octet_length(value), 0).op("::")(literal_column("bigint"))

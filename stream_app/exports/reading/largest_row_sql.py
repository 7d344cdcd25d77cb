"""Builds the queries that find the row above the size limit. Pure.

A row is too long by what the format writes, with its escapes. To count these, values have to be read, which
takes long. So the largest row by its stored values is looked up first. If it is smaller than the limit, those
rows are measured that can exceed it with their escapes.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, literal, literal_column, select
from sqlalchemy.dialects.postgresql import array

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, Format, cell
from stream_app.exports.formats.rendering import as_text, is_json_text
from stream_app.exports.queries.row_query import RowQuery
from stream_app.exports.queries.sql_text import render
from streaming_exporter.errors import Rejected, value_too_large
from streaming_exporter.events import Options

SHOWN_KEY = 100
"""Characters of a key that an error shows."""

GROWTH = 6
"""The most bytes that a format writes for one byte of a value: JSON's escape of a control character."""

_SMALL = {
    Kind.BOOLEAN, Kind.INTEGER, Kind.FLOAT, Kind.UUID, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ,
    Kind.INTERVAL, Kind.ENUM,
}  # fmt: skip


def largest_row_query(query: RowQuery, key: Sequence[Column]) -> str:
    """Return the query for the largest row of ``query``.

    Its columns are ``key``, the texts of the key columns, and ``sizes``, the bytes of each column. It reads
    all rows, but not the values that PostgreSQL stores outside of them (TOAST).
    """
    return _largest(query, key, [_bytes(item) for item in query.columns])


def longest_row_query(query: RowQuery, key: Sequence[Column], file_format: Format, options: Options) -> str:
    """Return the query for the longest row of ``query`` as ``file_format`` writes it.

    Its columns are those of :func:`largest_row_query`, with the bytes that the format writes. It reads the
    values of all rows that can exceed the format's limit.
    """
    copied = file_format.copy_select(query.columns, options)
    values: Sequence[Any] = list(copied.select.selected_columns)
    if copied.select.get_final_froms() != [ROWS] or len(values) != len(query.columns):
        # PostgreSQL makes the whole line.
        values = [as_text(item) for item in query.columns]
    by_copy = _escapes_of_copy(copied.copy)
    escapes = copied.escapes or by_copy
    sizes = [
        _written(item, value, by_copy if is_json_text(item.data_type) else escapes)
        for item, value in zip(query.columns, values, strict=True)
    ]
    stored: ColumnElement[Any] = reduce(add, map(_bytes, query.columns))
    return _largest(query, key, sizes, stored > file_format.row_bytes // GROWTH)


def _escapes_of_copy(options: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the characters that COPY escapes with these options, see :attr:`CopySelect.escapes`."""
    if options.get("format") == "csv":
        return {options.get("quote", '"'): 1}
    return {"\\\b\f\n\r\t\v": 1}


def _largest(
    query: RowQuery,
    key: Sequence[Column],
    sizes: Sequence[ColumnElement[int]],
    condition: ColumnElement[bool] | None = None,
) -> str:
    names: list[ColumnElement[str]] = [func.left(cast(cell(item), Text), SHOWN_KEY) for item in key]
    key_texts: ColumnElement[Any] = array(names, type_=Text())
    columns: list[ColumnElement[Any]] = [key_texts.label("key"), array(sizes).label("sizes")]
    measured = select(*columns).select_from(ROWS).offset(0)
    if condition is not None:
        measured = measured.where(condition)
    return (
        f"WITH rows AS ({render(query.select.order_by(None))})"
        f" SELECT key, sizes FROM ({render(measured)}) AS measured"
        " ORDER BY (SELECT sum(size) FROM unnest(sizes) AS size) DESC LIMIT 1"
    )


def row_too_large(
    query: RowQuery,
    key: Sequence[Column],
    found: tuple[Sequence[str | None], Sequence[int]],
    limit: int,
    output: str,
) -> Rejected:
    """Return the error for the row that one of the queries has found: its key and its sizes."""
    values, sizes = found
    size, number = max((size, number) for number, size in enumerate(sizes))
    names = " and ".join(f"{item.name} is {value!r}" for item, value in zip(key, values, strict=True))
    return value_too_large(
        query.columns[number].name, f"the row whose {names}" if names else "a row", size, limit, output
    )


def _bytes(item: Column) -> ColumnElement[int]:
    """Return SQL for the bytes of the value as text. For kinds of small values it is 0."""
    if item.kind in _SMALL:
        return literal_column("0::bigint")
    value = cell(item) if item.kind in (Kind.BYTES, Kind.TEXT) else cast(as_text(item), Text)
    return func.coalesce(func.octet_length(value), 0).op("::")(literal_column("bigint"))


def _written(item: Column, value: ColumnElement[Any], escapes: Mapping[str, int]) -> ColumnElement[int]:
    """Return SQL for the bytes that are written for ``value``. For kinds of small values it is 0."""
    if item.kind in _SMALL:
        return _bytes(item)
    text = cast(value, Text)
    more: list[ColumnElement[Any]] = [
        (func.length(text) - func.length(func.translate(text, literal(characters), literal(""))))
        * literal_column(str(count))
        for characters, count in escapes.items()
    ]
    return func.coalesce(reduce(add, more, func.octet_length(text)), 0).op("::")(literal_column("bigint"))

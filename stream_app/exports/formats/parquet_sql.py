"""What PostgreSQL sends for each type of column that Parquet is written from."""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func, literal, literal_column

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import cell
from stream_app.exports.formats.renderings import texts_of
from stream_app.exports.formats.sql import as_text, place

MAX_PRECISION = 38
"""Beyond it readers such as DuckDB take a DECIMAL for a double and lose digits, or refuse the file."""


def decimal_type(item: Column) -> tuple[int, int] | None:
    """Precision and scale of a numeric that a DECIMAL holds; Parquet demands 0 <= scale <= precision."""
    if item.kind is not Kind.NUMERIC or item.precision is None:
        return None
    precision, scale = item.precision
    precision, scale = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
    return (precision, scale) if precision <= MAX_PRECISION else None


def typed_values(columns: Iterable[Column]) -> Iterator[ColumnElement[Any]]:
    """Each column as its reader in :mod:`parquet_reader` takes it."""
    return map(_value, columns)


def _value(item: Column) -> ColumnElement[Any]:
    value = cell(item)
    match item.kind:
        case Kind.BOOLEAN | Kind.DATE | Kind.TIME | Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return value
        case Kind.BYTES:
            return func.encode(value, literal("hex"))
        case Kind.ARRAY if item.data_type.element is not None:
            texts: ColumnElement[Any] = literal_column(texts_of(place(item), item.data_type.element))
            return cast(func.to_json(texts), Text)
    return as_text(item)

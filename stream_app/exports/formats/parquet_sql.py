"""What PostgreSQL sends for each type of column that Parquet is written from."""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Text, cast, func, literal

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import cell
from stream_app.exports.formats.sql import as_text

MAX_PRECISION = 38
"""Beyond it readers such as DuckDB take a DECIMAL for a double and lose digits, or refuse the file."""


def decimal_type(item: Column) -> tuple[int, int] | None:
    """Precision and scale of a numeric that a DECIMAL holds; Parquet demands 0 <= scale <= precision."""
    if item.kind is not Kind.NUMERIC or not item.type.startswith("numeric("):
        return None
    precision, scale = map(int, item.type.removeprefix("numeric(").removesuffix(")").split(","))
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
        case Kind.ARRAY:
            return cast(func.to_json(cast(value, ARRAY(Text))), Text)
    return as_text(item)

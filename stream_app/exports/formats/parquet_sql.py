"""What PostgreSQL sends for each type of column that Parquet is written from."""

from collections.abc import Iterable, Iterator
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Integer, Text, and_, case, cast, func, literal

from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters import Spelled
from stream_app.exports.formats.base import cell
from stream_app.exports.formats.sql import as_text

MAX_PRECISION = 38
"""Beyond it readers such as DuckDB take a DECIMAL for a double and lose digits, or refuse the file."""

_BOUNDS = {
    Kind.DATE: ("0001-01-01", "10000-01-01"),
    Kind.TIMESTAMP: ("0001-01-01", "10000-01-01"),
    Kind.TIMESTAMPTZ: ("0001-01-01 00:00:00+00", "10000-01-01 00:00:00+00"),
    Kind.TIME: ("00:00:00", "24:00:00"),
}
"""Readers take years of four digits, whatever the integers of the format would hold."""


def decimal_type(item: Column) -> tuple[int, int] | None:
    """Precision and scale of a numeric that a DECIMAL holds; Parquet demands 0 <= scale <= precision."""
    if item.kind is not Kind.NUMERIC or not item.type.startswith("numeric("):
        return None
    precision, scale = map(int, item.type.removeprefix("numeric(").removesuffix(")").split(","))
    precision, scale = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
    return (precision, scale) if precision <= MAX_PRECISION else None


def typed_values(columns: Iterable[Column]) -> Iterator[ColumnElement[Any]]:
    """Each column as Arrow's CSV reader takes it; null where its type cannot hold the value."""
    for item in columns:
        fits = _fits(item)
        yield _value(item) if fits is None else case((fits, _value(item)))


def unrepresentable(columns: Iterable[Column]) -> Iterator[ColumnElement[Any]]:
    """How many values of a row their types cannot hold: one column, or none where all values fit."""
    misfits = [
        cast(func.coalesce(~fits, literal(False)), Integer)
        for item in columns
        if (fits := _fits(item)) is not None
    ]
    if misfits:
        yield reduce(add, misfits)


def _fits(item: Column) -> ColumnElement[bool] | None:
    value = cell(item)
    if item.kind in _BOUNDS:
        kind = Spelled(item.base)
        low, high = (cast(literal(bound), kind) for bound in _BOUNDS[item.kind])
        return and_(value >= low, value < high)
    if decimal_type(item):
        return value != cast(literal("NaN"), Spelled("numeric"))
    return None


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

"""SQL renderings of values that several formats share; types without an entry are PostgreSQL's own text.

Sessions run with ``TimeZone=UTC``, ``IntervalStyle=iso_8601`` and ``extra_float_digits=1``.
"""

from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import cell


def iso_time(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """``2026-01-31T13:30:00+00:00``: what PostgreSQL's JSON functions write, without the quotes."""
    return func.btrim(cast(func.to_json(value), Text), '"')


def base64(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """RFC 4648 base64 without line breaks."""
    return func.translate(func.encode(value, "base64"), "\n", "")


def as_text(item: Column) -> ColumnElement[Any]:
    """The value as the text that csv, pdf and the text cells of a workbook show."""
    value = cell(item)
    match item.kind:
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return iso_time(value)
        case Kind.BYTES:
            return base64(value)
        case Kind.ARRAY:
            return cast(func.to_json(value), Text)
        case Kind.INTEGER | Kind.NUMERIC | Kind.FLOAT | Kind.DATE | Kind.UUID | Kind.JSON:
            return value
        case Kind.TEXT if item.base == "text":
            return value
        case Kind.OTHER if item.base == "inet":
            return func.abbrev(value)  # its cast to text alone appends /32
    return cast(value, Text)

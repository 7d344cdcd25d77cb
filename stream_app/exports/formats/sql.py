"""SQL renderings of values that several formats share; types without an entry are PostgreSQL's own text.

Sessions run with ``TimeZone=UTC``, ``IntervalStyle=iso_8601`` and ``extra_float_digits=1``.
"""

from typing import Any

from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal_column

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import cell

COMMON_ERA = ("0001-01-01", "10000-01-01")
"""From when to when (exclusive) a time's text has nothing but its date, a space and its time of day."""


def iso_time(value: ColumnElement[Any], *, zone: bool) -> ColumnElement[Any]:
    """``2026-01-31T13:30:00+00:00``: what PostgreSQL's JSON functions write, without the quotes.

    They look the type up for every value, so all but infinity and far-off years go without them.
    """
    first, end = (_moment(day, zone=zone) for day in COMMON_ERA)
    plain = func.replace(cast(value, Text), " ", "T")
    return case(
        (and_(value >= first, value < end), plain.concat(":00") if zone else plain),
        else_=func.btrim(cast(func.to_json(value), Text), '"'),
    )


def _moment(day: str, *, zone: bool) -> ColumnElement[Any]:
    return literal_column(f"'{day} 00:00:00{'+00' if zone else ''}'")


def base64(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """RFC 4648 base64 without line breaks."""
    return func.translate(func.encode(value, "base64"), "\n", "")


def as_text(item: Column) -> ColumnElement[Any]:
    """The value as the text that csv, pdf and the text cells of a workbook show."""
    value = cell(item)
    match item.kind:
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return iso_time(value, zone=item.kind is Kind.TIMESTAMPTZ)
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

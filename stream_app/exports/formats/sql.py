"""Renderings of whole columns that several formats share; see ``renderings`` for types within types.

Transactions run with ``TimeZone=UTC``, ``IntervalStyle=iso_8601`` and ``extra_float_digits=1``.
"""

from typing import Any

from sqlalchemy import ColumnElement, Numeric, Text, and_, case, cast, func, literal_column

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import ROWS, cell
from stream_app.exports.formats.renderings import is_own_json, is_own_text, quoted, text_of

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


def place(item: Column) -> str:
    """The column ``item`` of the rows as plain SQL, told apart from whatever stands within its value."""
    return f"{ROWS.name}.{quoted(item.name)}"


def number(item: Column) -> ColumnElement[Any]:
    """The value of a numeric column; that of ``money`` without a currency."""
    return cast(cell(item), Numeric) if item.base == "money" else cell(item)


def as_text(item: Column) -> ColumnElement[Any]:
    """The value as the text that csv, pdf and the text cells of a workbook show."""
    value = cell(item)
    match item.kind:
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            return iso_time(value, zone=item.kind is Kind.TIMESTAMPTZ)
        case Kind.BYTES:
            return base64(value)
        case Kind.ARRAY if is_own_json(item.data_type):
            return cast(func.to_json(value), Text)
        case Kind.NUMERIC:
            return number(item)
        case Kind.INTEGER | Kind.FLOAT | Kind.DATE | Kind.UUID | Kind.JSON:
            return value
        case Kind.TEXT if item.base == "text":
            return value
    if is_own_text(item.data_type):
        return cast(value, Text)
    return literal_column(text_of(place(item), item.data_type), Text)

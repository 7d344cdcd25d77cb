"""How PostgreSQL renders the value of a cell, by kind. Dates are days since 1899-12-30."""

from typing import Any

from sqlalchemy import ColumnElement, Integer, Text, Time, and_, case, cast, func, literal, literal_column

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import cell
from stream_app.exports.formats.rendering import as_text, numeric_value

AS_TEXT = "\n"
"""Leads a value that its column's kind of cell cannot hold, and makes COPY quote it."""

DIGITS = 15
"""Significant decimal digits that every double, and so every spreadsheet, keeps."""

_EPOCH = 25569  # 1970-01-01
# Before 1900-03-01 the count differs between programs, because Excel believes in 1900-02-29.
_FIRST, _LAST = "'1900-03-01'", "'9999-12-31'"
_LAST_SECOND = "time '23:59:59'"


def value_of(item: Column) -> ColumnElement[Any]:
    """The value, led by :data:`AS_TEXT` if a cell of its kind cannot hold it."""
    value = cell(item)
    match item.kind:
        case Kind.BOOLEAN:
            return cast(value, Integer)
        case Kind.INTEGER if item.base == "int8":
            return _number(value, value.between(*_bounds(DIGITS)))
        case Kind.INTEGER:
            return value
        case Kind.NUMERIC:
            value = numeric_value(item)
            return _number(value, _short(item, value))
        case Kind.FLOAT:
            finite = and_(value > literal_column("'-Infinity'"), value < literal_column("'Infinity'"))
            return _either(finite, cast(value, Text), item)
        case Kind.DATE:
            days = value - literal_column("date '1899-12-30'")
            return _either(
                value.between(literal_column(_FIRST), literal_column(_LAST)), cast(days, Text), item
            )
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            known = and_(value >= literal_column(_FIRST), value < literal_column("'10000-01-01'"))
            days = _days(_within_day(item, value)).op("+")(literal_column(str(_EPOCH)))
            return _either(known, cast(days, Text), item)
        case Kind.TIME:
            days = _days(func.least(value, literal_column(_LAST_SECOND)))
            return _either(value < literal_column("'24:00'"), cast(days, Text), item)
    return as_text(item)


def _within_day(item: Column, value: ColumnElement[Any]) -> ColumnElement[Any]:
    """The time, cut to the second in a day's last second.

    Cells show seconds, and programs round to what they show: half a second later it would be the next day,
    or the day after the last that there is. The days of far-off years have no room for microseconds either.
    """
    # The transaction runs in UTC. Of the ways to have the time of day there, an interval is the cheapest.
    utc = func.timezone(literal_column("interval '0'"), value)
    local = utc if item.kind is Kind.TIMESTAMPTZ else value
    return case(
        (cast(local, Time) > literal_column(_LAST_SECOND), func.date_trunc("second", value)), else_=value
    )


def _days(value: ColumnElement[Any]) -> ColumnElement[Any]:
    # date_part() computes in double precision; EXTRACT would take numeric, at three times the cost.
    # SQLAlchemy would cast for a division of its own, to numeric again.
    return func.date_part(literal_column("'epoch'"), value).op("/")(literal_column("86400"))


def _short(item: Column, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Cheaply, that the number has few enough digits; false leaves it open."""
    scale = max(item.precision[1], 0) if item.precision else DIGITS
    if scale < DIGITS:
        return value.between(*_bounds(DIGITS - scale))
    return and_(func.length(cast(value, Text)) <= DIGITS, value.between(*_bounds(DIGITS)))


def _bounds(digits: int) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    bound = 10**digits - 1
    return literal_column(str(-bound)), literal_column(str(bound))


def _number(value: ColumnElement[Any], short: ColumnElement[bool]) -> ColumnElement[Any]:
    text = cast(value, Text)
    significant = func.btrim(func.translate(text, "-.", ""), "0")
    exact = and_(
        value.between(literal_column("-1e300"), literal_column("1e300")), func.length(significant) <= DIGITS
    )
    return case((short, text), (exact, text), else_=literal(AS_TEXT).concat(text))


def _either(holds: ColumnElement[bool], value: ColumnElement[Any], item: Column) -> ColumnElement[Any]:
    return case((holds, value), else_=literal(AS_TEXT).concat(cast(as_text(item), Text)))

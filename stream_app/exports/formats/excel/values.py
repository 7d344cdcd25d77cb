"""The SQL that renders the value of a cell, by kind. Dates are days since 1899-12-30."""

from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Text,
    Time,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    not_,
    or_,
)

from stream_app.exports.columns import Column, Kind
from stream_app.exports.formats.base import cell
from stream_app.exports.formats.rendering import as_text, column_sql, numeric_value
from stream_app.exports.formats.zoned import covered_local_sql, is_covered_sql, local_sql
from stream_app.time_zones import TimeZone

AS_TEXT = "\n"
"""Prefix of a value that a cell of its kind cannot hold. It is then a text, and COPY quotes it."""

DIGITS = 15
"""Number of significant decimal digits that a double, and so every spreadsheet, keeps exactly."""

_EPOCH = 25569  # 1970-01-01
# Before 1900-03-01 programs count days differently, because Excel has a day 1900-02-29.
_FIRST, _LAST = "'1900-03-01'", "'9999-12-31'"
_LAST_SECOND = "time '23:59:59'"


def value_of(item: Column) -> ColumnElement[Any]:
    """Return the value, with the prefix :data:`AS_TEXT` if a cell of its kind cannot hold it."""
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
        case Kind.TIMESTAMPTZ if item.zone is not None:
            return _local_days(item, item.zone)
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            known = and_(value >= literal_column(_FIRST), value < literal_column("'10000-01-01'"))
            days = _days(_within_day(item, value)).op("+")(literal_column(str(_EPOCH)))
            return _either(known, cast(days, Text), item)
        case Kind.TIME:
            days = _days(func.least(value, literal_column(_LAST_SECOND)))
            return _either(value < literal_column("'24:00'"), cast(days, Text), item)
    return as_text(item)


def _local_days(item: Column, zone: TimeZone) -> ColumnElement[Any]:
    """Return the days of a local time. Most values are within years that need no test of their limits."""

    def days(local: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(
            _days(_cut_last_second(local, local)).op("+")(literal_column(str(_EPOCH))),
            Text,
        )

    value = column_sql(item)
    local = literal_column(f"({local_sql(value, zone)})", DateTime)
    known = and_(local >= literal_column(_FIRST), local < literal_column("'10000-01-01'"))
    others = _either(known, days(local), item)
    if not zone.changes:
        return others
    covered = literal_column(is_covered_sql(value, zone), Boolean)
    return case((covered, days(literal_column(covered_local_sql(value, zone), DateTime))), else_=others)


def _within_day(item: Column, value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return the time, without fractions in the last second of a day.

    Programs round to the seconds that cells show. So the last half second of a day would be shown as the next
    day, which does not exist after the last date. In distant years, days have no room for microseconds.
    """
    # The transaction runs in UTC. An interval is the cheapest way to get the time of day in UTC.
    utc = func.timezone(literal_column("interval '0'"), value)
    return _cut_last_second(utc if item.kind is Kind.TIMESTAMPTZ else value, value)


def _cut_last_second(local: ColumnElement[Any], value: ColumnElement[Any]) -> ColumnElement[Any]:
    return case(
        (cast(local, Time) > literal_column(_LAST_SECOND), func.date_trunc("second", value)), else_=value
    )


def _days(value: ColumnElement[Any]) -> ColumnElement[Any]:
    # date_part() uses double precision. EXTRACT would use numeric, at three times the cost, and so would
    # SQLAlchemy's own division.
    return func.date_part(literal_column("'epoch'"), value).op("/")(literal_column("86400"))


def _short(item: Column, value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return a cheap test whether the number has few enough digits. False means unknown."""
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
        value.between(literal_column("-1e300"), literal_column("1e300")),
        # Programs read a smaller number as zero.
        or_(
            not_(value.between(literal_column("-1e-300"), literal_column("1e-300"))),
            value == literal_column("0"),
        ),
        func.length(significant) <= DIGITS,
    )
    return case((short, text), (exact, text), else_=literal(AS_TEXT).concat(text))


def _either(holds: ColumnElement[bool], value: ColumnElement[Any], item: Column) -> ColumnElement[Any]:
    return case((holds, value), else_=literal(AS_TEXT).concat(cast(as_text(item), Text)))

"""The SQL that writes numbers, dates and times as a locale does. Pure.

No digit is lost or rounded. Values without parts change only: arrays, composite types, ranges, intervals and
JSON stay as they are, because programs read them. Dates before the year 1 or after 9999 and infinity stay as
they are too, because no locale has a form for them.
"""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Text, case, cast, literal_column

from stream_app.exports.columns import Column, Kind, quote_text
from stream_app.exports.formats.file_words import PLAIN_BOOLEANS
from stream_app.exports.formats.identifiers import is_identifier
from stream_app.exports.formats.rendering import as_text, column_sql
from stream_app.exports.formats.zoned import (
    covered_text_sql,
    is_covered_sql,
    local_sql,
    local_text_sql,
    offset_text_sql,
)
from stream_app.locales import LocaleRules

_NUMBERS = {Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT}

_COMMON_ERA = ("0001-01-02", "9999-12-31")
"""Days from the first to the second (exclusive) are written as the locale does, in every time zone."""

_NUMBER_FORMAT = re.compile(r"(?P<whole>#,##0|#,##,##0|#|0)(\.(?P<least>0*)#*)?")
"""Number formats of Excel that can be followed in a text."""


@dataclass(frozen=True, slots=True)
class NumberStyle:
    """How the numbers of a column are written.

    Attributes:
        decimal: the decimal separator.
        group: separates groups of digits; empty for no groups.
        groups: digits of the last group of the integer part, and of the groups before it.
        least: the fewest digits of the fraction. Zeros are added up to it.
    """

    decimal: str = "."
    group: str = ""
    groups: tuple[int, int] = (3, 3)
    least: int = 0


def local_text(item: Column, rules: LocaleRules | None) -> ColumnElement[Any]:
    """Return the value as text for csv: numbers without groups, instants with their offset."""
    if rules is None:
        return as_text(item)
    if item.kind in _NUMBERS:
        return _number(item, NumberStyle(rules.decimal))
    return _other(item, rules)


def printed_text(
    item: Column, rules: LocaleRules | None, booleans: tuple[str, str] = PLAIN_BOOLEANS
) -> ColumnElement[Any]:
    """Return the value as text for people: with a locale, amounts have groups and times end with the second.

    Times are local times without an offset: the report names their zone, or UTC. ``booleans`` are the words
    for true and false.
    """
    style = printed_numbers(item, rules)
    if style is not None:
        return _number(item, style)
    value = column_sql(item)
    match item.kind:
        case Kind.BOOLEAN if booleans != PLAIN_BOOLEANS:
            yes, no = map(quote_text, booleans)
            return literal_column(f"CASE WHEN {value} THEN {yes} WHEN NOT {value} THEN {no} END", Text)
        case Kind.TIMESTAMP | Kind.TIMESTAMPTZ:
            local, plain = _printed_time(item)
            if rules is None:
                return literal_column(plain, Text)
            return _in_common_era(item, _clock(item, local, rules), literal_column(plain, Text))
    return as_text(item) if rules is None else _other(item, rules)


def _printed_time(item: Column) -> tuple[str, str]:
    """Return SQL for the local time, a ``timestamp``, and for its text without an offset."""
    value = column_sql(item)
    if item.kind is Kind.TIMESTAMP:
        return value, f"({value})::text"
    if item.zone is None:
        local = f"timezone(interval '0', {value})"
        return local, f"({local})::text"
    return f"({local_sql(value, item.zone)})", local_text_sql(value, item.zone)


def _clock(item: Column, local: str, rules: LocaleRules) -> str:
    """Return SQL for a ``timestamp`` to the second, or with all digits if the column's format has some."""
    if has_fractions(item):
        return _time(local, rules)
    return f"to_char({local}, {quote_text(rules.sql_date + ' HH24:MI:SS')})"


def has_fractions(item: Column) -> bool:
    """Return whether the number format of a column shows fractions of seconds, such as ``hh:mm:ss.000``."""
    return re.search(r"s[.,]0", item.number_format or "", re.IGNORECASE | re.ASCII) is not None


def printed_numbers(item: Column, rules: LocaleRules | None) -> NumberStyle | None:
    """Return how :func:`printed_text` writes numbers of a column; ``None`` if it leaves them as they are."""
    wanted = _NUMBER_FORMAT.fullmatch(item.number_format or "")
    if item.kind not in _NUMBERS or (rules is None and wanted is None):
        return None
    decimal, group = (".", ",") if rules is None else (rules.decimal, rules.group)
    if wanted is None and is_identifier(item):
        group = ""
    groups = (3, 3) if rules is None else rules.groups
    if wanted is not None:
        if "," not in wanted["whole"]:
            group = ""
        if wanted["whole"] == "#,##,##0":
            groups = (3, 2)
    return NumberStyle(decimal, group, groups, len(wanted["least"] or "") if wanted else 0)


def _number(item: Column, style: NumberStyle) -> ColumnElement[Any]:
    if style == NumberStyle() or (item.kind is Kind.INTEGER and not (style.group or style.least)):
        return as_text(item)
    value = f"({column_sql(item)})::numeric::text" if item.base == "money" else f"({column_sql(item)})::text"
    if not style.group and not style.least:
        return literal_column(f"replace({value}, '.', {quote_text(style.decimal)})", Text)
    whole, fraction = f"split_part({value}, '.', 1)", f"split_part({value}, '.', 2)"
    if style.group:
        last, others = style.groups
        pattern = f"([0-9])(?=([0-9]{{{others}}})*[0-9]{{{last}}}$)"
        # In the replacement a backslash would be special. No locale has one.
        whole = f"regexp_replace({whole}, '{pattern}', {quote_text(chr(92) + '1' + style.group)}, 'g')"
    if style.least:
        fraction = f"rpad({fraction}, greatest(length({fraction}), {style.least}), '0')"
        decimal = quote_text(style.decimal)
    else:
        decimal = f"CASE WHEN {value} LIKE '%.%' THEN {quote_text(style.decimal)} ELSE '' END"
    # Infinity, NaN and numbers with an exponent have letters.
    return literal_column(
        f"CASE WHEN {value} ~ '[a-zA-Z]' THEN replace({value}, '.', {quote_text(style.decimal)})"
        f" ELSE {whole} || {decimal} || {fraction} END",
        Text,
    )


def _other(item: Column, rules: LocaleRules) -> ColumnElement[Any]:
    value = column_sql(item)
    match item.kind:
        case Kind.DATE:
            return _in_common_era(
                item, f"to_char({value}, {quote_text(rules.sql_date)})", cast(as_text(item), Text)
            )
        case Kind.TIME:
            return literal_column(_with_decimal(f"({value})::text", rules), Text)
        case Kind.TIMESTAMP:
            return _in_common_era(item, _time(value, rules), as_text(item))
        case Kind.TIMESTAMPTZ:
            zone = item.zone
            local = f"timezone(interval '0', {value})" if zone is None else f"({local_sql(value, zone)})"
            offset = "'+00:00'" if zone is None else f"({offset_text_sql(value, zone)})"
            usual = _in_common_era(item, f"{_time(local, rules)} || {offset}", as_text(item))
            if zone is None or not zone.changes:
                return usual
            covered = covered_text_sql(
                value, zone, lambda moment, shift: f"{_time(moment, rules)} || '{shift}'"
            )
            test = literal_column(is_covered_sql(value, zone), Boolean)
            return case((test, literal_column(covered, Text)), else_=usual)
    return as_text(item)


def _time(local: str, rules: LocaleRules) -> str:
    """Return SQL for a ``timestamp``: the date, a space, and the time with all of its digits."""
    time = _with_decimal(f"substr(({local})::text, 12)", rules)
    return f"to_char({local}, {quote_text(rules.sql_date + ' ')}) || {time}"


def _in_common_era(item: Column, text: str, otherwise: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return SQL for ``text``, or ``otherwise`` for values that no locale has a form for."""
    offset = " 00:00:00+00" if item.kind is Kind.TIMESTAMPTZ else ""
    value = column_sql(item)
    first, end = (f"'{day}{offset}'::{item.kind}" for day in _COMMON_ERA)
    test = literal_column(f"{value} >= {first} AND {value} < {end}", Boolean)
    return case((test, literal_column(text, Text)), else_=otherwise)


def _with_decimal(time: str, rules: LocaleRules) -> str:
    return time if rules.decimal == "." else f"replace({time}, '.', {quote_text(rules.decimal)})"

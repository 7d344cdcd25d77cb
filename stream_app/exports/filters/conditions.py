"""Filters of a request as SQL conditions. Pure.

Each value is checked here, for a clear error. Then PostgreSQL receives it as text and casts it to the type
of the column, so every type (enum, inet, range, domain) is compared as the database compares it.

The operators ``ne``, ``not_in`` and ``is_null: true`` find rows whose value is NULL; no other operator does.
A ``null`` as value, also in a list, stands for NULL. A date stands for the whole day, also in a column of
timestamps (see :mod:`~stream_app.exports.filters.whole_days`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    String,
    Text,
    all_,
    and_,
    any_,
    cast,
    false,
    func,
    literal,
    literal_column,
    not_,
    null,
    or_,
    true,
)
from sqlalchemy.types import UserDefinedType

from stream_app.datasets.typed_values import MICROSECONDS, checked_text, value_mismatch
from stream_app.datasets.written_times import is_between_microseconds
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters import whole_days
from stream_app.exports.filters.value_parts import check_parts
from streaming_exporter.errors import Rejected

UTC_ZONE = ZoneInfo("UTC")

MAX_VALUES = 10_000
"""Largest number of values in a list for ``in`` and ``not_in``."""

COMPARISONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column.is_distinct_from(value),
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
}

Target = ColumnElement[Any]

DAY_COMPARISONS: dict[str, Callable[[Target, Target, Target], ColumnElement[bool]]] = {
    "eq": lambda column, start, end: and_(column >= start, column < end),
    "ne": lambda column, start, end: or_(column < start, column >= end, column.is_(None)),
    "lt": lambda column, start, end: column < start,
    "lte": lambda column, start, end: column < end,
    "gt": lambda column, start, end: column >= end,
    "gte": lambda column, start, end: column >= start,
}
"""By operator: the condition for a column, the start of a day, and its end."""

BETWEEN_MICROSECONDS: dict[str, Callable[[Target, Target], ColumnElement[bool]]] = {
    "eq": lambda column, before: false(),
    "ne": lambda column, before: true(),
    "lt": lambda column, before: column <= before,
    "lte": lambda column, before: column <= before,
    "gt": lambda column, before: column > before,
    "gte": lambda column, before: column > before,
}
"""By operator: the condition for a time between two microseconds, which no column can have."""

LISTS = ("in", "not_in")
TEXTUAL = ("prefix", "contains")


class NamedType(UserDefinedType[Any]):
    """A type by the name that PostgreSQL gives it (``format_type``), such as ``numeric(18,6)``."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """Return the name, as in ``CAST(… AS name)``."""
        return self.name


def operators(column: Column) -> tuple[str, ...]:
    """Return the operators that a filter on ``column`` can use. A masked column has none."""
    if column.mask is not None:
        return ()
    match column.kind:
        case Kind.JSON:
            return ("contains", "is_null")
        case Kind.BOOLEAN:
            return ("eq", "ne", "is_null")
        case Kind.ARRAY:
            return ("is_null",)
    equality = ("eq", "ne") if column.equality else ()
    ordering = ("lt", "lte", "gt", "gte") if column.ordering else ()
    lists = LISTS if column.equality else ()
    textual = TEXTUAL if column.kind is Kind.TEXT and column.pattern else ()
    return (*equality, *ordering, *lists, *textual, "is_null")


def conditions(
    filters: Mapping[str, Any],
    columns: Mapping[str, Column],
    reference: Callable[[str], ColumnElement[Any]],
    *,
    hidden: Collection[str] = (),
    zone: ZoneInfo = UTC_ZONE,
) -> list[ColumnElement[bool]]:
    """Return the SQL conditions for ``filters``. A row must fulfil all of them.

    Args:
        filters: values or operators with values, by column.
        columns: the columns that can be used, by name.
        reference: returns the SQL expression of a column.
        hidden: columns that can be used but are not named in errors.
        zone: the time zone of days.

    Raises:
        Rejected: a column or operator is unknown, or a value has the wrong type.
    """
    found = []
    for name, wanted in filters.items():
        field = f"filters.{name}"
        if name not in columns:
            shown = [item for item, known in columns.items() if item not in hidden and known.mask is None]
            raise Rejected(
                f"the dataset has no column {name!r}", code="unknown_column", field=field, allowed=shown
            )
        column = columns[name]
        if column.mask is not None:
            raise Rejected(
                f"column {name!r} is masked for you, so it cannot be filtered",
                code="masked_column",
                field=field,
                allowed=[
                    item for item, known in columns.items() if item not in hidden and known.mask is None
                ],
            )
        tests = wanted if isinstance(wanted, dict) else {"eq": wanted}
        for operator, value in tests.items():
            if operator not in operators(column):
                raise Rejected(
                    f"a column of type {column.type} has no operator {operator!r}",
                    code="unknown_operator",
                    field=field,
                    allowed=operators(column),
                )
            where = f"{field}.{operator}" if isinstance(wanted, dict) else field
            found.append(
                _condition(comparable(reference(name), column), column, operator, value, where, zone)
            )
    return found


def comparable(target: ColumnElement[Any], column: Column) -> ColumnElement[Any]:
    """Return the expression of a column as it can be compared with a value that is cast to its type."""
    return cast(target, NamedType(column.cast)) if column.is_enum_domain else target


def _condition(
    target: ColumnElement[Any], column: Column, operator: str, value: Any, field: str, zone: ZoneInfo
) -> ColumnElement[bool]:
    if operator == "is_null" or (operator in ("eq", "ne") and value is None):
        wanted = {"eq": True, "ne": False}.get(operator, value)
        if not isinstance(wanted, bool):
            raise value_mismatch(field, value, "true or false")
        return _is_null(target, column) if wanted else _is_filled(target, column)
    if operator in LISTS:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            raise value_mismatch(field, value, f"a list of 1 to {MAX_VALUES} values")
        return _in_list(target, column, operator, value, field, zone)
    if operator in TEXTUAL:
        if not isinstance(value, str):
            raise value_mismatch(field, value, "a text")
        return _textual(target, column, operator, value)
    if (day := whole_days.day_of(column.kind, value, zone, field)) is not None:
        return DAY_COMPARISONS[operator](target, _cast(day.start, column), _cast(day.end, column))
    constant = _cast(_checked(column, value, field), column)
    if _is_no_value(column, value):
        return BETWEEN_MICROSECONDS[operator](target, constant)
    return COMPARISONS[operator](target, constant)


def _is_null(target: ColumnElement[Any], column: Column) -> ColumnElement[bool]:
    """Return the condition that the value is NULL. ``IS NULL`` would test the fields of a composite value."""
    return target.is_not_distinct_from(null()) if column.kind is Kind.OTHER else target.is_(None)


def _is_filled(target: ColumnElement[Any], column: Column) -> ColumnElement[bool]:
    """Return the opposite condition. ``IS NOT NULL`` would be no opposite for a composite value."""
    return target.is_distinct_from(null()) if column.kind is Kind.OTHER else target.is_not(None)


def _textual(target: ColumnElement[Any], column: Column, operator: str, value: str) -> ColumnElement[bool]:
    """Return the condition of ``prefix`` or ``contains``, which agrees with the type's own ``=``."""
    text = cast(target, Text)
    if column.base == "citext":
        return (text.istartswith if operator == "prefix" else text.icontains)(value, autoescape=True)
    found = (text.startswith if operator == "prefix" else text.contains)(value, autoescape=True)
    if column.base == "bpchar" and value.endswith(" "):
        return or_(found, target == _cast(value, column))  # spaces at the end are ignored
    return found


def _checked(column: Column, value: Any, field: str) -> str:
    """Check ``value`` and return it as text that PostgreSQL reads as this value, or as the one before it."""
    moment = whole_days.without_zone(column.kind, value, field)
    check_parts(column, moment, field)
    return checked_text(column, moment, field)


def _is_no_value(column: Column, value: Any) -> bool:
    """Return whether a checked value has more digits than any value of the column."""
    return column.kind in MICROSECONDS and is_between_microseconds(value)


def _cast(text: str, column: Column, suffix: str = "") -> ColumnElement[Any]:
    return cast(literal(text, String), NamedType(f"{column.cast or column.type}{suffix}"))


def _in_list(
    target: ColumnElement[Any],
    column: Column,
    operator: str,
    values: Sequence[Any],
    field: str,
    zone: ZoneInfo,
) -> ColumnElement[bool]:
    """Return the condition of ``in`` or ``not_in``, which compare each value as ``eq`` and ``ne`` do."""
    wanted = [item for item in values if item is not None]
    with_null = len(wanted) < len(values)
    if not wanted:
        return _is_null(target, column) if operator == "in" else _is_filled(target, column)
    days, texts = [], []
    for item in wanted:
        day = whole_days.day_of(column.kind, item, zone, field)
        if day is not None:
            days.append(day)
            continue
        text = _checked(column, item, field)
        if not _is_no_value(column, item):
            texts.append(text)
    if operator == "in":
        found = [_one_of(target, column, texts)] if texts else []
        found += [_within(target, column, days)] if days else []
        return or_(*found, _is_null(target, column)) if with_null else or_(false(), *found)
    others = [_none_of(target, column, texts)] if texts else []
    others += [not_(_within(target, column, days))] if days else []
    if not others:
        return _is_filled(target, column) if with_null else true()
    return and_(*others) if with_null else or_(and_(*others), _is_null(target, column))


MAX_RANGES = 20
"""Up to this number of separate days each is a range of its own, which an index can serve."""


def _within(
    target: ColumnElement[Any], column: Column, days: Sequence[whole_days.Day]
) -> ColumnElement[bool]:
    """Return the condition that the column is within one of ``days``.

    Of many days the borders are one array, which PostgreSQL searches by halves: a value within a day has an
    odd number of borders before it. A range from the first day to the last one is there for an index.
    """
    ranges = whole_days.merge_days(days)
    if len(ranges) <= MAX_RANGES:
        return or_(*(_between(target, column, day) for day in ranges))
    base = "timestamptz" if column.kind is Kind.TIMESTAMPTZ else "timestamp"
    borders = ",".join(f'"{border}"' for day in ranges for border in (day.start, day.end))
    array = cast(literal(f"{{{borders}}}", String), NamedType(f"pg_catalog.{base}[]"))
    place = func.width_bucket(cast(target, NamedType(f"pg_catalog.{base}")), array)
    whole = whole_days.Day(ranges[0].start, ranges[-1].end)
    return and_(_between(target, column, whole), place.op("%")(literal_column("2")) == literal_column("1"))


def _between(target: ColumnElement[Any], column: Column, day: whole_days.Day) -> ColumnElement[bool]:
    return DAY_COMPARISONS["eq"](target, _cast(day.start, column), _cast(day.end, column))


def _one_of(target: ColumnElement[Any], column: Column, texts: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that the column equals one of ``texts``.

    The values are one array constant: ten thousand casts would take half a second to write and to parse.
    Values of types of unknown kinds are cast one by one, because their arrays can have other delimiters.
    """
    if column.kind is Kind.OTHER:
        return target.in_([_cast(text, column) for text in texts])
    return target == any_(_array(column, texts))


def _none_of(target: ColumnElement[Any], column: Column, texts: Sequence[str]) -> ColumnElement[bool]:
    """Return the opposite condition, for values that are not NULL. Some types have ``=`` without ``<>``."""
    if column.kind is Kind.OTHER:
        return and_(
            _is_filled(target, column), *(target.is_distinct_from(_cast(text, column)) for text in texts)
        )
    return target != all_(_array(column, texts))


def _array(column: Column, texts: Sequence[str]) -> ColumnElement[Any]:
    elements = ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    return _cast(f"{{{elements}}}", column, "[]")

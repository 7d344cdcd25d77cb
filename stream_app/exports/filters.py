"""Filters of a request as SQL conditions. Pure.

Every value is checked here, for a clear error, then handed to PostgreSQL as text and cast there to the
column's own type, so that any type (enum, inet, range, domain) compares as the database compares it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, String, Text, all_, any_, cast, literal
from sqlalchemy.types import UserDefinedType

from stream_app.errors import Rejected
from stream_app.exports.columns import Column, Kind

MAX_VALUES = 10_000
"""Longest list that ``in`` and ``not_in`` take."""

COMPARISONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "eq": lambda column, value: column == value,
    "ne": lambda column, value: column.is_distinct_from(value),
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
}
LISTS = ("in", "not_in")
TEXTUAL = ("prefix", "contains")


class Spelled(UserDefinedType[Any]):
    """A type as PostgreSQL itself spells it (``format_type``), such as ``numeric(18,6)``."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        """The name, as it stands after ``CAST(… AS``."""
        return self.name


def operators(column: Column) -> tuple[str, ...]:
    """The operators that a filter on ``column`` may use."""
    match column.kind:
        case Kind.JSON:
            return ("contains", "is_null")
        case Kind.BOOLEAN:
            return ("eq", "ne", "is_null")
        case Kind.ARRAY:
            return ("is_null",)
        case Kind.TEXT:
            return (*COMPARISONS, *LISTS, *TEXTUAL, "is_null")
        case _:
            return (*COMPARISONS, *LISTS, "is_null")


def conditions(
    filters: Mapping[str, Any], columns: Mapping[str, Column], reference: Callable[[str], ColumnElement[Any]]
) -> list[ColumnElement[bool]]:
    """The conditions that ``filters`` stand for; all of them must hold.

    ``reference`` gives the SQL expression of a column by name.

    Raises:
        Rejected: an unknown column or operator, or a value that the column's type does not take.
    """
    found = []
    for name, wanted in filters.items():
        field = f"filters.{name}"
        if name not in columns:
            raise Rejected("there is no such column", code="unknown_column", field=field, allowed=columns)
        column = columns[name]
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
            found.append(_condition(reference(name), column, operator, value, where))
    return found


def _condition(
    target: ColumnElement[Any], column: Column, operator: str, value: Any, field: str
) -> ColumnElement[bool]:
    if operator == "is_null" or (operator in ("eq", "ne") and value is None):
        wanted = {"eq": True, "ne": False}.get(operator, value)
        if not isinstance(wanted, bool):
            raise _mismatch(field, value, "true or false")
        return target.is_(None) if wanted else target.is_not(None)
    if operator in LISTS:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_VALUES:
            raise _mismatch(field, value, f"a list of 1 to {MAX_VALUES} values")
        return _list_condition(target, column, operator, [_text(column, item, field) for item in value])
    if operator in TEXTUAL:
        if not isinstance(value, str):
            raise _mismatch(field, value, "a text")
        text = cast(target, Text)
        return (text.startswith if operator == "prefix" else text.contains)(value, autoescape=True)
    return COMPARISONS[operator](target, _typed(column, value, field))


def _typed(column: Column, value: Any, field: str) -> ColumnElement[Any]:
    """``value`` as the database reads it: checked, as text, cast to the column's type."""
    return _cast(_text(column, value, field), column)


def _cast(text: str, column: Column, suffix: str = "") -> ColumnElement[Any]:
    return cast(literal(text, String), Spelled(f"{column.cast or column.type}{suffix}"))


def _list_condition(
    target: ColumnElement[Any], column: Column, operator: str, texts: Sequence[str]
) -> ColumnElement[bool]:
    """One array constant: ten thousand casts take both sides half a second to write and to read.

    Types of unknown kinds are cast one by one, since their arrays may not be separated by commas.
    """
    if column.kind is Kind.OTHER:
        values = [_cast(text, column) for text in texts]
        return target.in_(values) if operator == "in" else target.not_in(values)
    elements = ",".join('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in texts)
    array = _cast(f"{{{elements}}}", column, "[]")
    return target == any_(array) if operator == "in" else target != all_(array)


_INTEGER_LIMITS = {"int2": 2**15, "int4": 2**31, "int8": 2**63}


def _text(column: Column, value: Any, field: str) -> str:
    match column.kind:
        case Kind.BOOLEAN if isinstance(value, bool):
            return str(value).lower()
        case Kind.BOOLEAN:
            raise _mismatch(field, value, "true or false")
        case Kind.INTEGER:
            return _integer(column, value, field)
        case Kind.NUMERIC | Kind.FLOAT:
            return _number(value, field)
        case Kind.ENUM if value not in column.labels:
            raise Rejected(f"{value!r} is not one of its values", field=field, allowed=column.labels)
    if not isinstance(value, str):
        raise _mismatch(field, value, _EXPECTED.get(column.kind, "a text"))
    parse = _PARSERS.get(column.kind)
    if parse is not None:
        try:
            parse(value)
        except ValueError as error:
            raise _mismatch(field, value, _EXPECTED[column.kind]) from error
    return value


def _integer(column: Column, value: Any, field: str) -> str:
    """Whole numbers, also as text: JSON readers elsewhere round those beyond 2**53."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise _mismatch(field, value, "a whole number")
    limit = _INTEGER_LIMITS.get(column.base, 2**63)
    if not -limit <= value < limit:
        raise _mismatch(field, value, f"a whole number from {-limit} to {limit - 1}")
    return str(value)


def _number(value: Any, field: str) -> str:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise _mismatch(field, value, "a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise _mismatch(field, value, "a number") from error
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise _mismatch(field, value, "a finite number")
    return str(number)


_EXPECTED = {
    Kind.UUID: "a UUID",
    Kind.DATE: "a date such as 2026-01-31",
    Kind.TIME: "a time such as 13:30:00",
    Kind.TIMESTAMP: "a time such as 2026-01-31T13:30:00, a date, or such as now-7d",
    Kind.TIMESTAMPTZ: "a time such as 2026-01-31T13:30:00Z, a date (midnight in UTC), or such as now-7d",
}
_PARSERS: dict[Kind, Callable[[str], object]] = {
    Kind.UUID: UUID,
    Kind.DATE: date.fromisoformat,
    Kind.TIME: time.fromisoformat,
    Kind.TIMESTAMP: datetime.fromisoformat,
    Kind.TIMESTAMPTZ: datetime.fromisoformat,
}


def _mismatch(field: str, value: Any, expected: str) -> Rejected:
    return Rejected(f"expected {expected}, got {value!r:.100}", code="bad_filter_value", field=field)

"""Values of filters: checked as the column's type wants, then written as PostgreSQL reads them. Pure.

A value is taken whole or refused: no part of it is dropped on the way to the database.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from stream_app.errors import Rejected
from stream_app.exports.columns import Column, Kind

_WHOLE_NUMBERS = {
    "int2": range(-(2**15), 2**15),
    "int4": range(-(2**31), 2**31),
    "int8": range(-(2**63), 2**63),
    "oid": range(2**32),
}

_EXPECTED = {
    Kind.UUID: "a UUID",
    Kind.DATE: "a date such as 2026-01-31",
    Kind.TIME: "a time such as 13:30:00, without an offset",
    Kind.TIMESTAMP: "a time such as 2026-01-31T13:30:00, a date, or such as now-7d",
    Kind.TIMESTAMPTZ: "a time such as 2026-01-31T13:30:00Z, a date (midnight in UTC), or such as now-7d",
}

_DROPPED = {
    "tsrange": (
        r":\d\d(\.\d+)?\s*([+-]\d|[A-Za-z])|[T ]\d\d\s*[+-]\d",
        "without offsets: its times have no zone",
    ),
    "daterange": (r"\d:\d", "of dates, without times of day"),
}
"""By type, with its multirange: what PostgreSQL would drop from a bound without a word, and what to write."""
_DROPPED |= {name.replace("range", "multirange"): value for name, value in _DROPPED.items()}


def text_of(column: Column, value: Any, field: str) -> str:
    """``value`` as the database reads it.

    Raises:
        Rejected: it is none of the column's type; the text names ``field`` and what is allowed.
    """
    match column.kind:
        case Kind.BOOLEAN if isinstance(value, bool):
            return str(value).lower()
        case Kind.BOOLEAN:
            raise mismatch(field, value, "true or false")
        case Kind.INTEGER:
            return _integer(column, value, field)
        case Kind.NUMERIC | Kind.FLOAT:
            return _number(value, field)
        case Kind.ENUM if value not in column.labels:
            raise Rejected(f"{value!r} is not one of its values", field=field, allowed=column.labels)
    if not isinstance(value, str):
        raise mismatch(field, value, _EXPECTED.get(column.kind, "a text"))
    if (dropped := _DROPPED.get(column.base)) and re.search(dropped[0], value):
        raise mismatch(field, value, f"a {column.base} {dropped[1]}")
    parse = _PARSERS.get(column.kind)
    if parse is None:
        return value
    try:
        return parse(value)
    except (ValueError, OverflowError) as error:
        raise mismatch(field, value, _EXPECTED[column.kind]) from error


def mismatch(field: str, value: Any, expected: str) -> Rejected:
    """The error of a value that is not what was expected."""
    return Rejected(f"expected {expected}, got {value!r:.100}", code="bad_filter_value", field=field)


def _integer(column: Column, value: Any, field: str) -> str:
    """Whole numbers, also as text: JSON readers elsewhere round those beyond 2**53."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise mismatch(field, value, "a whole number")
    allowed = _WHOLE_NUMBERS.get(column.base, _WHOLE_NUMBERS["int8"])
    if value not in allowed:
        raise mismatch(field, value, f"a whole number from {allowed.start} to {allowed.stop - 1}")
    return str(value)


def _number(value: Any, field: str) -> str:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise mismatch(field, value, "a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise mismatch(field, value, "a number") from error
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise mismatch(field, value, "a finite number")
    return str(number)


def _time(value: str) -> str:
    if time.fromisoformat(value).tzinfo is not None:
        raise ValueError("an offset, which a time without a zone cannot have")
    return value.lstrip("Tt").replace(",", ".")


def _timestamp(value: str) -> str:
    """Times of a column without a zone are taken to be UTC: one with an offset is converted."""
    parsed = datetime.fromisoformat(value)
    if parsed.tzinfo is None:
        return _as_postgres(value, parsed, "")
    return _as_postgres(value, parsed.astimezone(UTC), "", anew=True)


def _timestamptz(value: str) -> str:
    parsed = datetime.fromisoformat(value)
    if parsed.tzinfo is None:
        return _as_postgres(value, parsed, "")
    return _as_postgres(value, parsed.astimezone(UTC), "+00:00")


def _as_postgres(value: str, parsed: datetime, offset: str, *, anew: bool = False) -> str:
    """The same time as PostgreSQL reads it, with all digits of its second, which Python cuts to six.

    It is written anew where the two do not read it alike: weeks, and a comma before the fraction.
    """
    if not anew and "W" not in value and "," not in value:
        return value
    fraction = re.search(r"[.,](\d+)", value)
    whole = parsed.replace(microsecond=0, tzinfo=None).isoformat()
    return whole + (f".{fraction[1]}" if fraction else "") + offset


_PARSERS: dict[Kind, Callable[[str], str]] = {
    Kind.UUID: lambda value: str(UUID(value)),
    Kind.DATE: lambda value: date.fromisoformat(value).isoformat(),
    Kind.TIME: _time,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
}

"""Kinds of PostgreSQL's types, and checks of values from requests before PostgreSQL receives them. Pure."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from stream_app.datasets.written_times import cut_to_microseconds, how_to_write, read_date, read_moment
from streaming_exporter.errors import Rejected


class Kind(StrEnum):
    """Groups of PostgreSQL types that are rendered in the same way. ``OTHER`` is rendered as text."""

    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMERIC = "numeric"
    FLOAT = "float"
    TEXT = "text"
    UUID = "uuid"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    TIMESTAMPTZ = "timestamptz"
    INTERVAL = "interval"
    JSON = "json"
    BYTES = "bytes"
    ARRAY = "array"
    ENUM = "enum"
    OTHER = "other"


TEMPORAL = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
"""The kinds of dates and times that can be relative to the current time."""

MICROSECONDS = frozenset({Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
"""The kinds of times. PostgreSQL would round further digits of a second, up to the next day."""

_OFFSET = r"[+-]\d{1,5}(?:s|mo|m|h|d|w|y)"
RELATIVE = re.compile(
    rf"(now|today|yesterday|tomorrow|start_of_(?:day|week|month|quarter|year))((?:{_OFFSET}){{0,20}})",
    re.ASCII,
)
"""The form of times that are relative to the current time, such as ``now-7d``. A text with more
offsets has another form, because the time of their computation must have a limit."""


class ValueType(Protocol):
    """The type of a value.

    Attributes:
        base: name of the type below any domain, such as ``numeric``.
        labels: values of an enum.
    """

    @property
    def kind(self) -> Kind: ...
    @property
    def base(self) -> str: ...
    @property
    def labels(self) -> Sequence[str]: ...


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
    Kind.TIMESTAMP: "a time such as 2026-01-31T13:30:00, a date, or a relative time such as now-7d",
    Kind.BYTES: (
        "bytes in base64, as files have them, such as 3q2+7w==, or in hexadecimal digits, such as \\xdeadbeef"
    ),
    Kind.TIMESTAMPTZ: ("a time such as 2026-01-31T13:30:00Z, a date, or a relative time such as now-7d"),
}

_CLOCK = r"\d\d:\d\d(:\d\d(\.\d+)?)?"
_USUAL_TIME = re.compile(_CLOCK, re.ASCII)
_USUAL_MOMENT = re.compile(rf"\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(Z|[+-](0\d|1[0-5])(:?[0-5]\d)?)?", re.ASCII)
"""Times that PostgreSQL reads as Python does. Others are written anew: week dates, hours without minutes,
decimal commas, offsets of 16 hours and more."""

_LARGEST_MONEY = Decimal("92233720368547758.07")
_SMALLEST_FLOAT4, _LARGEST_FLOAT4 = Decimal("1.4012985e-45"), Decimal("3.4028235e38")

_ONE_BYTE = re.compile(r"[\x01-\x7f]?|\\[0-7]{3}", re.DOTALL)
"""Values of the type ``"char"``. PostgreSQL silently cuts longer ones."""

_HEXADECIMAL = re.compile(r"\\x(?:\s*[0-9a-fA-F]{2})*\s*", re.ASCII)

_UNSENDABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that PostgreSQL cannot store, or that have no UTF-8."""


def checked_text(column: ValueType, value: Any, field: str) -> str:
    """Check ``value`` and return it as text that PostgreSQL reads. Of a second it has at most six digits.

    Raises:
        Rejected: the type of the column has no such value. The text names ``field`` and what is allowed.
    """
    if isinstance(value, str) and _UNSENDABLE.search(value):
        raise value_mismatch(field, value, "a text without NUL characters and halves of surrogate pairs")
    match column.kind:
        case Kind.BOOLEAN if isinstance(value, bool):
            return str(value).lower()
        case Kind.BOOLEAN:
            raise value_mismatch(field, value, "true or false")
        case Kind.INTEGER:
            return _integer(column, value, field)
        case Kind.NUMERIC | Kind.FLOAT:
            return _number(column, value, field)
        case Kind.ENUM if value not in column.labels:
            raise Rejected(f"the column has no value {value!r}", field=field, allowed=column.labels)
    if not isinstance(value, str):
        raise value_mismatch(field, value, _EXPECTED.get(column.kind, "a text"))
    if column.base == "char" and not _ONE_BYTE.fullmatch(value):
        raise value_mismatch(field, value, "one byte, as a character or as \\ and three octal digits")
    parse = _PARSERS.get(column.kind)
    if parse is None:
        return value
    if column.kind in MICROSECONDS:
        value = cut_to_microseconds(value)
    try:
        return parse(value)
    except (ValueError, OverflowError) as error:
        hint = how_to_write(value, has_time=column.kind is not Kind.DATE) if column.kind in TEMPORAL else None
        raise value_mismatch(field, value, hint or _EXPECTED[column.kind]) from error


def value_mismatch(field: str, value: Any, expected: str) -> Rejected:
    """Return the error for a value of the wrong type."""
    return Rejected(f"expected {expected}, got {value!r:.100}", code="bad_filter_value", field=field)


def _integer(column: ValueType, value: Any, field: str) -> str:
    """Check a whole number. Text is allowed, because many JSON libraries round numbers beyond 2**53."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise value_mismatch(field, value, "a whole number")
    allowed = _WHOLE_NUMBERS.get(column.base, _WHOLE_NUMBERS["int8"])
    if value not in allowed:
        raise value_mismatch(field, value, f"a whole number from {allowed.start} to {allowed.stop - 1}")
    return str(value)


def _number(column: ValueType, value: Any, field: str) -> str:
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        raise value_mismatch(field, value, "a number")
    try:
        number = Decimal(str(value))
    except InvalidOperation as error:
        raise value_mismatch(field, value, "a number") from error
    if not number.is_finite() or abs(number.adjusted()) > 300:
        raise value_mismatch(field, value, "a finite number")
    if column.base == "money":
        if abs(number) > _LARGEST_MONEY or number != round(number, 2):
            raise value_mismatch(
                field, value, f"a number of at most {_LARGEST_MONEY} with at most two decimals"
            )
        return f"{number:f}"  # money has no exponents
    if column.base == "float4" and number and not _SMALLEST_FLOAT4 <= abs(number) <= _LARGEST_FLOAT4:
        limits = f"{_SMALLEST_FLOAT4} to {_LARGEST_FLOAT4}"
        raise value_mismatch(field, value, f"a number whose absolute value is 0 or {limits}")
    return str(number)


def _time(value: str) -> str:
    parsed = time.fromisoformat(value)
    if parsed.tzinfo is not None:
        raise ValueError("a time without a zone cannot have an offset")
    return value if _USUAL_TIME.fullmatch(value) else _rewritten(value, parsed)


def _timestamp(value: str) -> str:
    """Convert a time with an offset to UTC: times of a column without a zone count as UTC."""
    parsed = _moment(value)
    if parsed.tzinfo is not None:
        return _rewritten(value, parsed.astimezone(UTC).replace(tzinfo=None))
    return value if _USUAL_MOMENT.fullmatch(value) else _rewritten(value, parsed)


def _timestamptz(value: str) -> str:
    parsed = _moment(value)
    in_utc = parsed if parsed.tzinfo is None else parsed.astimezone(UTC)  # fails beyond the years of Python
    return value if _USUAL_MOMENT.fullmatch(value) else _rewritten(value, in_utc)


def _moment(value: str) -> datetime:
    parsed = read_moment(value)
    if (parsed.utcoffset() or timedelta()).microseconds:
        raise ValueError("an offset has whole seconds")
    return parsed


def _rewritten(value: str, parsed: time | datetime) -> str:
    """Return the time as PostgreSQL reads it, with the digits of its second as they are written."""
    whole = parsed.replace(microsecond=0, tzinfo=None).isoformat()
    return whole + _fraction(value) + ("" if parsed.tzinfo is None else "+00:00")


def _fraction(value: str) -> str:
    """Return the fraction of a time's second as it is written."""
    found = re.search(r"[.,](\d+)", value)
    return f".{found[1]}" if found else ""


def _bytes(value: str) -> str:
    """Return bytes as hexadecimal digits. PostgreSQL takes base64 for the characters themselves."""
    if _HEXADECIMAL.fullmatch(value):
        return value
    content = b64decode(value, validate=True)
    if b64encode(content) != value.encode():
        raise ValueError("base64 whose last character has bits that mean nothing")
    return f"\\x{content.hex()}"


_PARSERS: dict[Kind, Callable[[str], str]] = {
    Kind.UUID: lambda value: str(UUID(value)),
    Kind.DATE: lambda value: read_date(value).isoformat(),
    Kind.TIME: _time,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMPTZ: _timestamptz,
    Kind.BYTES: _bytes,
}

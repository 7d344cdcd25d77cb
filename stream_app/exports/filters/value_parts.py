"""Times within the values of filters for ranges, composite types, ``timetz`` and intervals. Pure.

Only PostgreSQL reads these values. It silently ignores some of what they say, such as the offset of a time
without a zone, and it rounds seconds to six digits, so that the last moment of a day becomes the next day.
So a part without a zone must be a date or time of ISO 8601, all of which PostgreSQL reads, and no part can
have further digits.

A value is read in one pass, and each pattern needs a time that grows with the length of its text alone.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from stream_app.datasets.typed_values import value_mismatch
from stream_app.datasets.written_times import is_between_microseconds
from stream_app.exports.columns import Column, DataType, Kind

MAX_VALUE = 100_000
"""Largest number of characters of a value that has times."""

MAX_TIME = 256
"""Largest number of characters of a time. PostgreSQL takes as many, without the blanks, for an interval, and
fewer for other times."""


class _Form(NamedTuple):
    """How the times of a type without a zone are written: a pattern, and its words for errors."""

    pattern: re.Pattern[str]
    words: str


_DATE = r"(?:\d{4,7}-\d\d?-\d\d?|\d{4}([./])\d\d?\1\d\d?|\d{4}[-.]\d{3}|\d{8,10}|today|tomorrow|yesterday)"
_CLOCK = r"(?:\d\d?:\d\d?(?::\d\d?(?:\.\d*)?)?|\d{4}|\d{6}(?:\.\d*)?)(?:\s*[AP]M)?"
_ERA = r"(?:\s*(?:AD|BC))?"


def _form(pattern: str, words: str) -> _Form:
    return _Form(re.compile(rf"\s*(?:{pattern})\s*", re.ASCII | re.IGNORECASE), words)


_FORMS = {
    "timestamp": _form(
        rf"{_DATE}(?:(?:\s*T\s*|\s+){_CLOCK})?{_ERA}|[+-]?infinity|now|epoch",
        "without offsets, because its times have no zone, written as 2026-01-31T13:30:00",
    ),
    "date": _form(
        rf"{_DATE}{_ERA}|[+-]?infinity|now|epoch",
        "of dates, without times of day or offsets, written as 2026-01-31",
    ),
    "time": _form(
        rf"T?{_CLOCK}|now|allballs", "of times of day, without dates or offsets, written as 13:30:00"
    ),
}
"""By type. The years of PostgreSQL reach from 4713 before our era to 294276, and files have them so."""

_TIMES = frozenset({*_FORMS, "timestamptz", "timetz", "interval"})

_FRACTION = re.compile(r"[.,](\d+)\s*([A-Z]*)", re.ASCII | re.IGNORECASE)
"""The digits of a fraction in an interval, and its unit."""

_SIGN = re.compile(r'\\.|[^"\\,{}()\[\]]+|.', re.DOTALL)
"""A character with its escape, a text without special characters, or one of these."""


def check_parts(column: Column, value: object, field: str) -> None:
    """Check each time within a value of a type that only PostgreSQL reads.

    Raises:
        Rejected: PostgreSQL would ignore a part of a time, or round it, or the value is too long.
    """
    if column.kind not in (Kind.OTHER, Kind.INTERVAL) or not isinstance(value, str):
        return
    if not _has_times(column.data_type):
        return
    if len(value) > MAX_VALUE:
        raise value_mismatch(field, value, f"a {column.base} of at most {MAX_VALUE:,} characters")
    for name, text in _times(column.data_type, value):
        if len(text) > MAX_TIME:
            expected = f"whose times have at most {MAX_TIME} characters"
        elif name in _FORMS and not _FORMS[name].pattern.fullmatch(text):
            expected = _FORMS[name].words
        elif _is_rounded(name, text):
            expected = "with at most six digits of a second"
        else:
            continue
        raise value_mismatch(field, value, f"a {column.base} {expected}")


def _is_rounded(name: str, text: str) -> bool:
    """Return whether PostgreSQL rounds the time ``text`` of the type ``name``."""
    if name != "interval":
        return is_between_microseconds(text)
    return any(_is_rounded_fraction(found) for found in _FRACTION.finditer(text))


def _is_rounded_fraction(found: re.Match[str]) -> bool:
    digits, unit = found[1], found[2].lower()
    if found.string[: found.start()].rstrip("0123456789").endswith(":") or unit in ("", "ago"):
        kept = 6  # of a time of day, whose unit is ignored, or of seconds
    elif unit.startswith(("us", "micros")):
        kept = 0
    elif unit.startswith(("ms", "millis")):
        kept = 3
    elif unit.startswith("s"):
        kept = 6
    else:
        return False  # of a larger unit: a fraction of a day can be whole microseconds
    return digits[kept:].strip("0") != ""


@lru_cache(maxsize=1000)
def _has_times(data_type: DataType) -> bool:
    """Return whether a type is one of times, or has parts that are."""
    parts = (data_type.element, data_type.bounds, *(part for _, part in data_type.fields))
    return (data_type.is_scalar and data_type.name in _TIMES) or any(
        part and _has_times(part) for part in parts
    )


def _times(data_type: DataType, text: str) -> Iterator[tuple[str, str]]:
    """Yield the names of the types of all times with their texts. What PostgreSQL refuses can have any."""
    if not _has_times(data_type):
        return
    if data_type.is_scalar:
        if text.strip():  # otherwise it is NULL, no bound, or between the braces of an array
            yield data_type.name, text
        return
    for part, written in _parts(data_type, text.strip()):
        yield from _times(part, written)


def _parts(data_type: DataType, text: str) -> Iterator[tuple[DataType, str]]:
    """Return the texts of the parts of a value with their types."""
    if data_type.element is not None:
        elements = _split(text.partition("{")[2], "{},")
        return ((data_type.element, each) for each in elements if each.strip().upper() != "NULL")
    if data_type.bounds is None:
        types = (part for _, part in data_type.fields)
        return zip(types, _split(text[1:-1], ","), strict=False)
    if data_type.is_multirange:
        single = DataType(data_type.name, bounds=data_type.bounds)
        return ((single, each) for each in _ranges(text))
    bounds = () if text.lower() == "empty" else (data_type.bounds, data_type.bounds)
    return zip(bounds, _split(text[1:-1], ","), strict=False)


def _ranges(text: str) -> Iterator[str]:
    """Yield the texts of the ranges of a multirange."""
    start, is_quoted = -1, False
    for found in _SIGN.finditer(text):
        sign = found[0]
        if start < 0:
            start = found.start() if sign in ("[", "(") else -1
        elif sign == '"':
            is_quoted = not is_quoted
        elif sign in ("]", ")") and not is_quoted:
            yield text[start : found.end()]
            start = -1


def _split(text: str, separators: str) -> Iterator[str]:
    """Yield the texts between ``separators``, without their quotes and escapes."""
    part: list[str] = []
    is_quoted = is_closed = False
    for found in _SIGN.finditer(text):
        sign = found[0]
        if sign == '"':
            if is_closed:
                part.append(sign)  # two quotes within quotes are one
            is_closed, is_quoted = is_quoted, not is_quoted
            continue
        is_closed = False
        if sign in separators and not is_quoted:
            yield "".join(part)
            part.clear()
        else:
            part.append(sign.removeprefix("\\") if len(sign) == 2 else sign)
    yield "".join(part)

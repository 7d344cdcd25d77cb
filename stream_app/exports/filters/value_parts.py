"""Times within the values of filters for ranges, composite types, ``timetz`` and intervals. Pure.

Only PostgreSQL reads these values. It silently ignores some of what they say, and it rounds seconds to six
digits, so that the last moment of a day becomes the next day. Such values are refused with the reason.
"""

import re
from collections.abc import Iterator

from stream_app.datasets.typed_values import value_mismatch
from stream_app.exports.columns import Column, DataType, Kind

_DATE = r"\d{4}-?\d\d-?\d\d"
_CLOCK = r"(?::\d\d|T\d{4,6})(?:[.,]\d+)?"
_OFFSET = r"\s*(?:[+-]\d|(?!T?\d|T\s|(?:BC|AD|AM|PM)\b)[A-Z])"
_ZONE = r"\+\d|\d\s*Z\b|[A-Z]/[A-Z]|\b(?:UTC|GMT)\b"
_IGNORED = {
    "timestamp": (
        rf"(?:{_DATE}|{_CLOCK}){_OFFSET}|[T ]\d\d\s*[+-]\d|{_ZONE}",
        "without offsets, because its times have no zone",
    ),
    "date": (rf"\d:\d|{_DATE}{_OFFSET}|{_ZONE}", "of dates, without times of day or offsets"),
    "time": (
        rf"{_DATE}|(?:^\d{{4,6}}|{_CLOCK}){_OFFSET}|{_ZONE}",
        "of times of day, without dates or offsets",
    ),
}
"""By type: a pattern of what PostgreSQL ignores in a value, and what to write instead."""

_ROUNDED = r"[.,]\d{6}\d*[1-9]\d*"
_ROUNDING = dict.fromkeys(("time", "timetz", "timestamp", "timestamptz"), _ROUNDED)
_ROUNDING["interval"] = rf"{_ROUNDED}\s*(?:s|ago|$)"  # a fraction of days can be whole microseconds
"""By type: a pattern of seconds that PostgreSQL rounds."""

_NOTHING = r"(?!)"

_RANGE = re.compile(r'[\[(](?:"(?:[^"\\]|\\.)*"|\\.|[^"\\)\]])*[)\]]', re.DOTALL)
"""A range within a multirange."""


def check_parts(column: Column, value: object, field: str) -> None:
    """Check each time within a value of a type that only PostgreSQL reads.

    Raises:
        Rejected: PostgreSQL would ignore a part of a time, or round it.
    """
    if column.kind not in (Kind.OTHER, Kind.INTERVAL) or not isinstance(value, str):
        return
    for kind, text in _parts(column.data_type, value):
        ignored, expected = _IGNORED.get(kind.name, (_NOTHING, ""))
        if re.search(ignored, text, re.ASCII | re.IGNORECASE):
            raise value_mismatch(field, value, f"a {column.base} {expected}")
        if re.search(_ROUNDING.get(kind.name, _NOTHING), text, re.ASCII | re.IGNORECASE):
            raise value_mismatch(field, value, f"a {column.base} with at most six digits of a second")


def _parts(data_type: DataType, text: str) -> Iterator[tuple[DataType, str]]:
    """Yield the texts of all parts with their types. A text that PostgreSQL refuses can have any parts."""
    if data_type.is_scalar:
        yield data_type, text
    elif data_type.bounds is not None and data_type.is_multirange:
        for found in _RANGE.findall(text):
            for part in _split(found):
                yield from _parts(data_type.bounds, part)
    elif data_type.bounds is not None:
        for part in _split(text):
            yield from _parts(data_type.bounds, part)
    else:
        for (_, field), part in zip(data_type.fields, _split(text), strict=False):
            yield from _parts(field, part)


def _split(text: str) -> list[str]:
    """Return the parts of a range or of a composite value, without their quotes and escapes."""
    inner = text.strip()[1:-1]
    parts = [""]
    position, is_quoted = 0, False
    while position < len(inner):
        character = inner[position]
        position += 1
        if character == "\\":
            parts[-1] += inner[position : position + 1]
            position += 1
        elif character == '"' and is_quoted and inner.startswith('"', position):
            parts[-1] += '"'
            position += 1
        elif character == '"':
            is_quoted = not is_quoted
        elif character == "," and not is_quoted:
            parts.append("")
        else:
            parts[-1] += character
    return parts

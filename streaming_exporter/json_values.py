"""Checks that JSON has the values of filters and parameters, so that what is sent is what was meant. Pure."""

from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from operator import is_
from typing import Any
from uuid import UUID

from pydantic_core import PydanticCustomError, to_jsonable_python

_LISTS = (list, tuple, set, frozenset)

MAX_LEVELS = 20
"""Levels of objects and lists in the values of filters and parameters. The filters of a bundle have four."""


def read_iterators(values: object) -> object:
    """Return ``values`` with a list in the place of each iterator, such as a generator.

    An iterator can be read only once, so the list replaces it in the object or list that has it, too:
    another validation of the same values, such as the one before they are sent, finds the same.
    """
    return _read(values, MAX_LEVELS + 1)  # one more, which is refused then


def _read(value: object, levels: int) -> object:
    if not levels:
        return value
    if isinstance(value, Iterator):
        value = list(value)
    if isinstance(value, dict | list):
        places = value.items() if isinstance(value, dict) else enumerate(value)
        for place, inner in list(places):
            if (read := _read(inner, levels - 1)) is not inner:
                value[place] = read
        return value
    if isinstance(value, _LISTS):
        read_all = [_read(inner, levels - 1) for inner in value]
        return value if all(map(is_, read_all, value)) else read_all
    return value


def check_json_values(values: dict[str, Any]) -> dict[str, Any]:
    """Return ``values`` as they are.

    JSON writes a finite ``Decimal``, a ``UUID``, a date, a time and an ``Enum`` as what they stand for. It
    would write NaN, infinity and the missing values of pandas as ``null``, which chooses other rows.

    Raises:
        PydanticCustomError: JSON has no such value. The text has the value's path.
    """
    _check(values, "")
    return values


def _check(value: object, where: str) -> None:
    if value is None or isinstance(value, str | bool | int | UUID | timedelta):
        return
    if isinstance(value, float | Decimal):
        if not (value.is_finite() if isinstance(value, Decimal) else isfinite(value)):
            raise _not_finite(where)
    elif isinstance(value, date | time):
        if value != value:  # such as NaT of pandas, which is a datetime
            raise _not_finite(where)
    elif isinstance(value, Enum):
        _check(value.value, where)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if not isinstance(name, str | int | UUID | date | Enum):
                raise _no_type(name, where, "is a name and")
            _check(inner, f"{where}.{name}" if where else str(name))
    elif isinstance(value, _LISTS):
        for number, inner in enumerate(value):
            _check(inner, f"{where}[{number}]")
    else:
        _check_other(value, where)


def _check_other(value: object, where: str) -> None:
    """Check a value of another type that pydantic knows, such as a path or a model."""
    if isinstance(value, Iterator):
        raise _no_type(value, where)  # it can be read only once
    try:
        written = to_jsonable_python(value)
    except ValueError as error:  # also of bytes that are no text
        raise _no_type(value, where) from error
    _check(written, where)


def _not_finite(where: str) -> PydanticCustomError:
    return PydanticCustomError(
        "not_finite",
        "{where} is no finite number and no time; JSON has no NaN and no infinity. Allowed: a value, or None "
        "where null is meant",
        {"where": where},
    )


def _no_type(value: object, where: str, what: str = "is") -> PydanticCustomError:
    return PydanticCustomError(
        "no_json_type",
        "{where} {what} of the type {type}, which JSON does not have. Allowed: texts, numbers, true, false, "
        "null, times, lists and objects",
        {"where": where or "it", "what": what, "type": type(value).__name__},
    )

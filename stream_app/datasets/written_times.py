"""Reads dates and times of ISO 8601, and refuses those that Python reads as other times. Pure.

Python takes any character between a date and a time: of a date with an offset (``2026-01-31+02:00``, an
``xs:date``) it makes 02:00 of that day. Of a week without a day (``2026-W05``) it makes the Monday.
"""

import re
from datetime import date, datetime

_DATE = r"\d{4}-\d\d-\d\d|\d{8}|\d{4}-W\d\d-\d|\d{4}W\d{3}"
_MOMENT = re.compile(rf"(?:{_DATE})(?:(?:[^\W\d]|\s).*)?", re.DOTALL)
"""A date alone, or a date, a letter or a space, and a time. No other character is between them: of two dates,
``2026-01-31/02-05``, Python makes 02:00 with an offset."""

_DAY = re.compile(_DATE, re.ASCII)
_WITH_OFFSET = re.compile(r"(\d{4}-\d\d-\d\d)\s?(Z|[+-]\d\d(?::?\d\d)?)", re.ASCII | re.IGNORECASE)
_WEEK = re.compile(r"(\d{4})-?W(\d\d)(?:[^-\d].*)?", re.ASCII | re.DOTALL)

_FURTHER_DIGITS = re.compile(r"([.,][0-9]{6})([0-9]+)")


def cut_to_microseconds(text: str) -> str:
    """Return the time that ``text`` is, without the digits of its second after the sixth."""
    return _FURTHER_DIGITS.sub(r"\1", text, count=1)


def is_between_microseconds(text: str) -> bool:
    """Return whether the time that ``text`` is differs from the one without these digits."""
    found = _FURTHER_DIGITS.search(text)
    return found is not None and found[2].strip("0") != ""


def read_date(text: str) -> date:
    """Return the day that ``text`` is.

    Raises:
        ValueError: it is no date, or a week without a day.
    """
    if not _DAY.fullmatch(text):
        raise ValueError("not a date")
    return date.fromisoformat(text)


def read_moment(text: str) -> datetime:
    """Return the time that ``text`` is; a date is its midnight.

    Raises:
        ValueError: it is no time, a date with an offset, or a week without a day.
    """
    if not _MOMENT.fullmatch(text):
        raise ValueError("not a time")
    return datetime.fromisoformat(text)


def how_to_write(text: str, *, has_time: bool) -> str | None:
    """Return how a date with an offset, or a week, is written; ``None`` for any other text.

    Args:
        text: a text that was refused.
        has_time: whether the value can be a time. Otherwise it can only be a date.
    """
    if found := _WITH_OFFSET.fullmatch(text):
        day, offset = found[1], found[2].upper()
        if not has_time:
            return f"a date without an offset, such as {day}"
        offset = offset if offset == "Z" or ":" in offset else f"{offset[:3]}:{offset[3:] or '00'}"
        return (
            f"a time ({day}T00:00:00{offset}) or a day with the name of its time zone ({day}[Europe/Berlin])"
        )
    if found := _WEEK.fullmatch(text):
        return f"the day of the week, such as {found[1]}-W{found[2]}-1 for its Monday"
    return None

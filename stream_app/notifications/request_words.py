"""What a job was requested for, in words for people: its filters, columns, rows and schedule. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

from stream_app.messages.catalogue import messages, text
from stream_app.notifications.mail_style import MailStyle
from stream_app.notifications.notification import ScheduleSummary
from stream_app.time_zones import find_zone
from streaming_exporter.errors import Rejected

MAX_FILTERS = 10
MAX_COLUMNS = 8
MAX_VALUES = 5
MAX_LENGTH = 200

_NONE: Mapping[str, str] = {}

PERIODS = {
    ("today", "tomorrow"): "today",
    ("yesterday", "today"): "yesterday",
    ("today-6d", "tomorrow"): "last_7_days",
    ("today-29d", "tomorrow"): "last_30_days",
    ("start_of_week", "start_of_week+1w"): "this_week",
    ("start_of_week-1w", "start_of_week"): "last_week",
    ("start_of_month", "start_of_month+1mo"): "this_month",
    ("start_of_month-1mo", "start_of_month"): "last_month",
    ("start_of_quarter", "start_of_quarter+3mo"): "this_quarter",
    ("start_of_quarter-3mo", "start_of_quarter"): "last_quarter",
    ("start_of_year", "start_of_year+1y"): "this_year",
    ("start_of_year-1y", "start_of_year"): "last_year",
}
"""The periods that the page offers: their filters ``gte`` and ``lt``."""

_SIGNS = {"eq": "=", "ne": "≠", "lt": "<", "lte": "≤", "gt": ">", "gte": "≥"}
_OPERATORS = frozenset({*_SIGNS, "in", "not_in", "prefix", "contains", "is_null"})
_DAY = re.compile(r"(\d{4}-\d\d-\d\d)(?:\[[\w+/-]+\])?", re.ASCII)
_LINK = re.compile(
    r"://|\bwww\.|(?<![\w@.-])(?:[\w-]+\.)+(?:[^\W\d_]{2,}|xn--[\w-]+)(?![\w-]|[\w.+-]*@)", re.IGNORECASE
)
"""What mail programs make a link of: also a domain alone, but not the address of a user."""


def one_line(text: str, limit: int) -> str:
    """Return ``text`` without line breaks, control and direction characters, cut to ``limit`` characters.

    Encoded words are broken up too, because in a header they could hide such characters.
    """
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    line = line.replace("=?", "= ?")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def user_text(text: str, limit: int = MAX_LENGTH) -> str | None:
    """Return a text of the request for a mail, or ``None`` if it has a link.

    Recipients trust links in the mails of the service, so no user can put one there.
    """
    line = one_line(text, limit)
    return None if _LINK.search(line) else line


def without_window(filters: object, window: tuple[datetime, datetime] | None) -> object:
    """Return the filters without that of a run's window, which the mail shows as the period."""
    if window is None or not isinstance(filters, Mapping):
        return filters
    return {column: tests for column, tests in filters.items() if not _is_window(tests, window)}


def _is_window(tests: object, window: tuple[datetime, datetime]) -> bool:
    if not isinstance(tests, Mapping) or set(tests) != {"gte", "lt"}:
        return False
    ends = _moment(tests["gte"]), _moment(tests["lt"])
    return ends == window or (tests["gte"], tests["lt"]) == tuple(end.date().isoformat() for end in window)


def filter_texts(filters: object, style: MailStyle, labels: Mapping[str, str] = _NONE) -> list[str]:
    """Return a text for each filter; none for filters that are invalid.

    Args:
        filters: the filters of a request.
        style: how values are written.
        labels: the labels of columns by their names. Other columns are called by their names.
    """
    if not isinstance(filters, Mapping):
        return []
    found = [
        item
        for column, tests in _flat(filters)
        for item in _of_column(labels.get(column, column), tests, style)
    ]
    shown = [user_text(item) or "…" for item in found[:MAX_FILTERS]]
    more = len(found) - len(shown)
    return [*shown, text(style.language, "mail.more", count=more)] if more else shown


def column_text(columns: object, style: MailStyle, labels: Mapping[str, str] = _NONE) -> str | None:
    """Return the chosen columns by their labels, or else their names; ``None`` if there is no choice."""
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        return None
    shown = ", ".join(user_text(labels.get(name, name)) or "…" for name in columns[:MAX_COLUMNS])
    if len(columns) > MAX_COLUMNS:
        return text(style.language, "mail.some_columns", names=shown, count=len(columns) - MAX_COLUMNS)
    return shown


LAST_DAY, SHORTEST_MONTH = 31, 28
"""The day that is the last one of each month, and the latest day that each month has."""


def schedule_text(summary: ScheduleSummary, language: str, locale: str) -> str | None:
    """Return when a schedule runs, such as ``every Monday at 06:00 (Europe/Berlin)``.

    ``None`` if the stored schedule is not valid.
    """
    from babel.dates import get_day_names

    time, zone = (summary.time_of_day or "00:00")[:5], summary.timezone
    try:
        find_zone(zone)
    except Rejected:
        return None
    match summary.schedule:
        case "daily":
            return text(language, "page.rhythm.daily", time=time, zone=zone)
        case "weekly":
            weekday = get_day_names("wide", locale=locale).get(summary.day or 0, "")
            return text(language, "page.rhythm.weekly", weekday=weekday, time=time, zone=zone)
        case "monthly":
            day = summary.day or 1
            key = "last_day" if day == LAST_DAY else "late_day" if day > SHORTEST_MONTH else "monthly"
            return text(language, f"page.rhythm.{key}", day=day, time=time, zone=zone)
        case cron:
            return text(language, "page.rhythm.cron", cron=one_line(cron, 100), zone=zone)


def _flat(filters: Mapping[Any, Any]) -> Iterator[tuple[str, object]]:
    """Yield the filters of each column; those of a bundle with the name of the dataset before the column's.

    A colon is between the names: with a dot they would look like the address of a website.
    """
    for name, tests in filters.items():
        if isinstance(tests, Mapping) and not tests.keys() <= _OPERATORS:
            yield from ((f"{name}: {column}", own) for column, own in tests.items())
        else:
            yield str(name), tests


def _of_column(column: str, tests: object, style: MailStyle) -> list[str]:
    """Return the texts for the filters of one column."""
    language = style.language
    if not isinstance(tests, Mapping):
        return [_test(column, "eq", tests, style)]
    found = {str(name): value for name, value in tests.items()}
    ends = found.get("gte"), found.get("lt")
    if len(found) == 2 and isinstance(ends[0], str) and isinstance(ends[1], str):
        if (name := PERIODS.get((ends[0], ends[1]))) is not None:
            period = text(language, f"page.periods.{name}")
            return [text(language, "page.shown_filters.period", column=column, period=period)]
        moments = _moment(ends[0]), _moment(ends[1])
        if moments[0] is not None and moments[1] is not None:
            shown = style.zoned(style.period(moments[0], moments[1]))
            return [text(language, "page.shown_filters.period", column=column, period=shown)]
    first, last = _day(found.get("gte")), _day(found.get("lte"))
    if first is not None and last is not None and first <= last:
        del found["gte"], found["lte"]
        shown = style.days(first, last)
        period = text(language, "page.shown_filters.period", column=column, period=shown)
        return [period, *(_test(column, name, value, style) for name, value in found.items())]
    return [_test(column, name, value, style) for name, value in found.items()]


def _test(column: str, name: str, value: object, style: MailStyle) -> str:
    """Return the text of one condition."""
    language = style.language
    if name == "is_null":
        key = "page.shown_filters.empty" if value else "page.shown_filters.not_empty"
        return text(language, key, column=column)
    day = _day(value)
    if day is not None and f"page.day_operators.{name}" in messages(language):
        key = "page.shown_filters.last_day" if name == "lte" else "page.shown_filters.day"
        operator = text(language, f"page.day_operators.{name}")
        return text(language, key, column=column, operator=operator, day=style.day(day))
    key = f"page.operators.{name}"
    sign = _SIGNS.get(name) or (text(language, key) if key in messages(language) else name)
    return f"{column} {sign} {_value(value, style)}"


def _value(value: object, style: MailStyle) -> str:
    if value is None:
        return text(style.language, "page.shown_filters.empty_value")
    if isinstance(value, bool):
        return text(style.language, "page.filters.true" if value else "page.filters.false")
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(str(item) for item in value[:MAX_VALUES])
        return shown + " …" * (len(value) > MAX_VALUES)
    moment = _moment(value)
    return str(value) if moment is None else style.zoned(style.moment(moment))


def _day(value: object) -> date | None:
    match = _DAY.fullmatch(value) if isinstance(value, str) else None
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


def _moment(value: object) -> datetime | None:
    """Return the instant that a text stands for, or ``None`` for any other value."""
    if not isinstance(value, str) or len(value) < len("2026-01-01T00:00Z"):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None

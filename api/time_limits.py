"""Reads the times that limit a list: ``since`` and ``until``, in the forms of filters. Pure."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from stream_app.datasets.typed_values import Kind, value_mismatch
from stream_app.datasets.written_times import how_to_write, read_moment
from stream_app.exports.filters.relative_dates import resolve_filters
from stream_app.exports.filters.whole_days import day_of, without_zone

EXPECTED = "a time such as 2026-01-31T13:30:00Z, a date, or a relative time such as today or now-7d"
LATEST = datetime.max.replace(tzinfo=UTC)


def since_moment(value: str | None, now: datetime, *, field: str = "since") -> datetime | None:
    """Return the first moment of ``value``; a day is one of UTC, unless it names its time zone.

    Raises:
        Rejected: ``value`` is no time.
    """
    return _moment(value, now, field, "gte")


def until_moment(value: str | None, now: datetime, *, field: str = "until") -> datetime | None:
    """Return the moment before which ``value`` ends: a day is included, a time is not.

    Raises:
        Rejected: ``value`` is no time.
    """
    return _moment(value, now, field, "lte")


def _moment(value: str | None, now: datetime, field: str, operator: str) -> datetime | None:
    if value is None:
        return None
    zone, kind = ZoneInfo("UTC"), Kind.TIMESTAMPTZ
    resolved = resolve_filters({field: {operator: value}}, {field: kind}, now, zone)[field][operator]
    day = day_of(kind, resolved, zone, field)
    if day is not None:
        resolved = day.start if operator == "gte" else day.end
        if not resolved[:5].endswith("-"):
            return LATEST  # the day after the last one of the calendar
    try:
        moment = read_moment(without_zone(kind, resolved, field))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise value_mismatch(field, value, how_to_write(value, has_time=True) or EXPECTED) from error

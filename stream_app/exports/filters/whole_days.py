"""Whole days in filters: a date without a time, for a column of timestamps, is all of its day. Pure.

A day is written ``2026-10-31``, or with its time zone ``2026-10-31[Europe/Berlin]``. A local time can name
its zone in the same way, as RFC 9557 writes it: ``2026-10-31T12:00[Europe/Berlin]``.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from stream_app.datasets.typed_values import value_mismatch
from stream_app.datasets.written_times import read_date, read_moment
from stream_app.exports.columns import Kind
from stream_app.exports.filters.local_time import DAY, instant, start_of
from stream_app.time_zones import check_zone_name

TIMESTAMPS = frozenset({Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
BEGINNINGS = frozenset({"gte", "lt"})
"""Operators that compare with the beginning of a day only."""

_ZONE = r"\[([A-Za-z][A-Za-z0-9_+/-]{0,99})\]"
_WRITTEN = re.compile(rf"([0-9W-]{{7,10}})(?:{_ZONE})?", re.ASCII)
_LOCAL = re.compile(rf"([^\[\]]{{1,50}}){_ZONE}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Day:
    """A day as texts that PostgreSQL reads: its ``start``, and the start of the next day."""

    start: str
    end: str


def day_zone(timezone: str | None, default: str | None = None) -> ZoneInfo:
    """Return the time zone of the days in the filters of a request.

    Args:
        timezone: ``options.timezone`` of the request.
        default: the time zone of the dataset.

    Raises:
        Rejected: there is no such time zone.
    """
    return find_zone(timezone or default or "UTC", "options.timezone")


def find_zone(name: str, field: str) -> ZoneInfo:
    """Return the time zone ``name``.

    Raises:
        Rejected: there is no such time zone.
    """
    if name != "UTC":
        check_zone_name(name, field)
    return ZoneInfo(name)


def written_day(value: Any) -> tuple[date, str | None] | None:
    """Return the date that ``value`` is, and the name of its time zone; ``None`` if it is no date."""
    found = _WRITTEN.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    try:
        return read_date(found[1]), found[2]
    except ValueError:
        return None


def day_of(kind: Kind, value: Any, zone: ZoneInfo, field: str) -> Day | None:
    """Return the day that ``value`` is for a column of ``kind``; ``None`` if it is no day for it.

    Columns without a time zone have days of their own times. If the value names a zone, their times count as
    UTC, as they do for times with an offset.

    Raises:
        Rejected: there is no time zone of the name in ``value``.
    """
    written = written_day(value) if kind in TIMESTAMPS else None
    if written is None:
        return None
    day, name = written
    if name is not None:
        zone = find_zone(name, field)
    elif kind is Kind.TIMESTAMP:
        zone = ZoneInfo("UTC")
    return Day(_start(day, zone, kind), _end(day, zone, kind))


def without_zone(kind: Kind, value: Any, field: str) -> Any:
    """Return a local time that names its zone as a time in UTC; any other value as it is.

    Raises:
        Rejected: there is no time zone of the name in ``value``, or its offset is not that of the zone.
    """
    found = _LOCAL.fullmatch(value) if kind in TIMESTAMPS and isinstance(value, str) else None
    if found is None:
        return value
    zone = find_zone(found[2], field)
    try:
        wall = read_moment(found[1])
        if wall.tzinfo is not None:
            _check_offset(wall, found, field)
            return found[1]
        moment = instant(wall.replace(microsecond=0), zone)
    except (ValueError, OverflowError):
        return value
    fraction = re.search(r"[.,](\d+)", found[1])
    return f"{moment.replace(tzinfo=None).isoformat()}{'.' + fraction[1] if fraction else ''}+00:00"


def _check_offset(moment: datetime, written: re.Match[str], field: str) -> None:
    """Check that the time zone has the offset of the time. ``Z`` says nothing about it (RFC 9557, 2.2)."""
    offset = moment.astimezone(ZoneInfo(written[2])).utcoffset()
    if written[1][-1] not in "Zz" and offset != moment.utcoffset():
        shown = moment.astimezone(ZoneInfo(written[2])).isoformat()
        raise value_mismatch(
            field, written[0], f"an offset that {written[2]} has at this time, such as {shown}[{written[2]}]"
        )


@lru_cache(maxsize=20_000)
def _start(day: date, zone: ZoneInfo, kind: Kind) -> str:
    moment = datetime.combine(day, time(), UTC)
    if zone.key != "UTC":
        with suppress(OverflowError):  # the first and the last day of the calendar stay in UTC
            moment = start_of(day, zone)
    return moment.replace(tzinfo=None).isoformat() + ("+00:00" if kind is Kind.TIMESTAMPTZ else "")


def _end(day: date, zone: ZoneInfo, kind: Kind) -> str:
    if day == date.max:
        return "10000-01-01T00:00:00" + ("+00:00" if kind is Kind.TIMESTAMPTZ else "")
    return _start(day + DAY, zone, kind)


def merge_days(days: Iterable[Day]) -> list[Day]:
    """Return ``days`` in their order, with days that follow each other as one."""
    found: list[Day] = []
    for day in sorted(set(days)):
        if found and _in_time(found[-1].end) >= _in_time(day.start):
            found[-1] = Day(found[-1].start, max(found[-1].end, day.end, key=_in_time))
        else:
            found.append(day)
    return found


def _in_time(text: str) -> tuple[int, str]:
    """Return a value by which times are ordered, also the end of the last day, whose year has five digits."""
    return text.index("-"), text


def with_zone(
    filters: Mapping[str, Any], kinds: Mapping[str, Kind], zone: ZoneInfo, default: ZoneInfo
) -> dict[str, Any]:
    """Return ``filters`` whose days name ``zone``, where they would be days of ``default`` otherwise.

    ``kinds`` has the kinds of the columns. Only columns of instants (``timestamptz``) have days of a zone.
    """
    if zone.key == default.key:
        return dict(filters)
    return {
        name: _named(value, zone) if kinds.get(name) is Kind.TIMESTAMPTZ else value
        for name, value in filters.items()
    }


def _named(value: Any, zone: ZoneInfo) -> Any:
    if isinstance(value, dict):
        return {operator: _named(item, zone) for operator, item in value.items()}
    if isinstance(value, list):
        return [_named(item, zone) for item in value]
    written = written_day(value)
    return f"{value}[{zone.key}]" if written is not None and written[1] is None else value

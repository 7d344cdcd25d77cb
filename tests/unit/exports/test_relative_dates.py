"""Filter values relative to the current time."""

import calendar
from datetime import UTC, date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from stream_app.exports.columns import Kind
from stream_app.exports.filters.local_time import instant, start_of, wall_of
from stream_app.exports.filters.relative_dates import is_relative, resolve_filters
from tests.rows import each_row

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 3, 30, 7, 15, 30, 500, tzinfo=UTC)
"""A Monday, 09:15:30 in Berlin, the day after the clocks went forward."""


@each_row(
    ("value", "moment", "day"),
    [
        ("now", "2026-03-30T07:15:30Z", "2026-03-30"),
        ("now-7d", "2026-03-23T08:15:30Z", "2026-03-23"),
        ("now-24h", "2026-03-29T07:15:30Z", "2026-03-29"),
        ("now-90m", "2026-03-30T05:45:30Z", "2026-03-30"),
        ("today", "2026-03-29T22:00:00Z", "2026-03-30"),
        ("yesterday", "2026-03-28T23:00:00Z", "2026-03-29"),
        ("tomorrow", "2026-03-30T22:00:00Z", "2026-03-31"),
        ("today-1d+6h", "2026-03-29T05:00:00Z", "2026-03-29"),
        ("start_of_week", "2026-03-29T22:00:00Z", "2026-03-30"),
        ("start_of_week-1w", "2026-03-22T23:00:00Z", "2026-03-23"),
        ("start_of_month", "2026-02-28T23:00:00Z", "2026-03-01"),
        ("start_of_month-1mo", "2026-01-31T23:00:00Z", "2026-02-01"),
        ("now-1mo", "2026-02-28T08:15:30Z", "2026-02-28"),
        ("start_of_quarter", "2025-12-31T23:00:00Z", "2026-01-01"),
        ("start_of_year-1y", "2024-12-31T23:00:00Z", "2025-01-01"),
    ],
)
def test_values_stand_for_moments_and_days_of_the_zone(value: str, moment: str, day: str) -> None:
    kinds = {"at": Kind.TIMESTAMPTZ, "on": Kind.DATE}
    found = resolve_filters({"at": {"gte": value, "lt": value}, "on": value}, kinds, NOW, BERLIN)
    assert found == {"at": {"gte": moment, "lt": moment}, "on": day}


@each_row("month", range(1, 13))
@each_row("day", [1, 17, 31])
def test_every_anchor_on_every_month(month: int, day: int) -> None:
    days = calendar.monthrange(2028, month)[1]
    today = date(2028, month, min(day, days))
    now = datetime.combine(today, time(12), UTC)
    expected = {
        "today": today,
        "yesterday": date.fromordinal(today.toordinal() - 1),
        "tomorrow": date.fromordinal(today.toordinal() + 1),
        "start_of_day": today,
        "start_of_week": date.fromisocalendar(*today.isocalendar()[:2], 1),
        "start_of_month": date(2028, month, 1),
        "start_of_quarter": date(2028, {1: 1, 2: 4, 3: 7, 4: 10}[(month + 2) // 3], 1),
        "start_of_year": date(2028, 1, 1),
        "start_of_month+1mo-1d": date(2028, month, days),
    }
    filters = {name: name for name in expected}
    found = resolve_filters(filters, dict.fromkeys(expected, Kind.DATE), now, ZoneInfo("UTC"))
    assert found == {name: wanted.isoformat() for name, wanted in expected.items()}


@each_row(
    ("zone", "day"),
    [
        ("America/Santiago", date(2026, 9, 6)),
        ("Africa/Cairo", date(2026, 4, 24)),
        ("Asia/Beirut", date(2026, 3, 29)),
        ("America/Havana", date(2026, 3, 8)),
        ("America/Havana", date(2026, 11, 1)),  # midnight exists twice
        ("Europe/Berlin", date(2026, 3, 29)),
        ("Pacific/Apia", date(2011, 12, 31)),  # the day before does not exist
    ],
)
@each_row("hour", [0, 12, 23])
def test_days_that_follow_each_other_meet_at_every_change_of_clocks(zone: str, day: date, hour: int) -> None:
    """The same day has one beginning, whichever day it is counted from and in whatever units."""
    place = ZoneInfo(zone)
    for distance in range(-9, 10):
        run = date.fromordinal(day.toordinal() + distance)
        now = instant(datetime.combine(run, time(hour, 30)), place)
        if wall_of(now, place).date() != run:
            continue  # there is no such day, or its first hour is skipped
        for offset in (-10, -1, 0, 1, 10, -distance - 1, -distance, -distance + 1):
            wanted = start_of(date.fromordinal(run.toordinal() + offset), place)
            weeks = f"today{offset + 7:+d}d-1w"
            found = _moments(place, now, f"today{offset:+d}d", weeks, f"yesterday{offset + 1:+d}d")
            assert found == [wanted] * 3, (run, offset)


def test_elapsed_units_count_from_the_first_moment_after_a_skipped_midnight() -> None:
    zone = ZoneInfo("America/Santiago")
    now = datetime(2026, 9, 6, 15, tzinfo=UTC)
    assert _moments(zone, now, "today", "today+1h", "today+1h-1d", "tomorrow-24h", "today-1d+24h") == [
        datetime(2026, 9, 6, 4, tzinfo=UTC),
        datetime(2026, 9, 6, 5, tzinfo=UTC),
        datetime(2026, 9, 5, 6, tzinfo=UTC),  # 02:00, a local day before 02:00
        datetime(2026, 9, 6, 3, tzinfo=UTC),
        datetime(2026, 9, 6, 4, tzinfo=UTC),
    ]


def _moments(zone: ZoneInfo, now: datetime, *values: str) -> list[datetime]:
    kinds = {"at": Kind.TIMESTAMPTZ}
    found = [resolve_filters({"at": {"gte": value}}, kinds, now, zone)["at"]["gte"] for value in values]
    return [datetime.fromisoformat(text) for text in found]


@pytest.mark.parametrize("value", [5, 1.5, True, None, ["today", 5, None], {"in": [None, "today"]}, []])
def test_a_value_that_is_no_text_stays_as_it_is(value: Any) -> None:
    found = resolve_filters({"on": value}, {"on": Kind.DATE}, NOW, BERLIN)["on"]
    assert repr(found) == repr(value).replace("today", "2026-03-30")
    assert is_relative({"on": value}) is ("today" in repr(value))
    assert is_relative(value) is ("today" in repr(value))


def test_the_same_words_are_plain_text_in_other_columns() -> None:
    filters = {"word": "today", "id": {"gte": 5}, "missing": "now"}
    assert resolve_filters(filters, {"word": Kind.TEXT, "id": Kind.INTEGER}, NOW, BERLIN) == filters


@pytest.mark.parametrize(
    "value", ["now-7", "Today", "now - 7d", "start_of_day-", "now-999999d", "2026-01-01"]
)
def test_other_values_are_unchanged(value: str) -> None:
    assert not is_relative({"at": [value]})
    assert resolve_filters({"at": value}, {"at": Kind.DATE}, NOW, BERLIN) == {"at": value}


def test_a_value_beyond_the_calendar_is_unchanged() -> None:
    assert resolve_filters({"at": "now-99999y"}, {"at": Kind.DATE}, NOW, BERLIN) == {"at": "now-99999y"}
    assert is_relative({"at": {"gte": "now-99999y"}})


def test_a_relative_value_has_a_limit_of_offsets() -> None:
    assert is_relative("now" + "+1d" * 20)
    assert not is_relative("now" + "+1d" * 21)

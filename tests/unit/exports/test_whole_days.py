"""A date in a filter of timestamps is its whole day (people A1)."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.datasets.models import Parameter
from stream_app.exports.columns import Kind
from stream_app.exports.filters.relative_dates import resolve_filters, resolve_parameters
from stream_app.exports.filters.whole_days import (
    Day,
    day_of,
    day_zone,
    merge_days,
    with_zone,
    without_zone,
    written_day,
)
from streaming_exporter.errors import Rejected
from tests.rows import each_row

BERLIN, UTC_ZONE = ZoneInfo("Europe/Berlin"), ZoneInfo("UTC")
NOW = datetime(2026, 10, 25, 12, tzinfo=UTC)
"""The Sunday on which the clocks in Berlin went back."""


@each_row(
    ("kind", "value", "zone", "start", "end"),
    [
        (Kind.TIMESTAMPTZ, "2026-10-31", UTC_ZONE, "2026-10-31T00:00:00+00:00", "2026-11-01T00:00:00+00:00"),
        (Kind.TIMESTAMPTZ, "2026-10-25", BERLIN, "2026-10-24T22:00:00+00:00", "2026-10-25T23:00:00+00:00"),
        (Kind.TIMESTAMPTZ, "20261031", UTC_ZONE, "2026-10-31T00:00:00+00:00", "2026-11-01T00:00:00+00:00"),
        (Kind.TIMESTAMPTZ, "2026-W44-6", UTC_ZONE, "2026-10-31T00:00:00+00:00", "2026-11-01T00:00:00+00:00"),
        (
            Kind.TIMESTAMPTZ,
            "2026-10-31[America/New_York]",
            BERLIN,
            "2026-10-31T04:00:00+00:00",
            "2026-11-01T04:00:00+00:00",
        ),
        (Kind.TIMESTAMPTZ, "0001-01-01", BERLIN, "0001-01-01T00:00:00+00:00", None),
        (Kind.TIMESTAMPTZ, "9999-12-31", BERLIN, None, "10000-01-01T00:00:00+00:00"),
        # Samoa had no 30 December 2011.
        (
            Kind.TIMESTAMPTZ,
            "2011-12-30",
            ZoneInfo("Pacific/Apia"),
            "2011-12-30T10:00:00+00:00",
            "2011-12-30T10:00:00+00:00",
        ),
        (Kind.TIMESTAMP, "2026-10-31", BERLIN, "2026-10-31T00:00:00", "2026-11-01T00:00:00"),
        (Kind.TIMESTAMP, "2026-10-31[Europe/Berlin]", UTC_ZONE, "2026-10-30T23:00:00", "2026-10-31T23:00:00"),
    ],
)
def test_the_borders_of_a_day(
    kind: Kind, value: str, zone: ZoneInfo, start: str | None, end: str | None
) -> None:
    day = day_of(kind, value, zone, "f")
    assert day is not None
    assert day.start == (start or day.start)
    assert day.end == (end or day.end)


@each_row(
    "value",
    ["2026-10-31T00:00", "2026-02-30", "now-7d", "today", 20261031, None, True, "", "2026", ["a"], {}],
)
def test_what_is_no_date_is_no_day(value: Any) -> None:
    assert written_day(value) is None
    assert day_of(Kind.TIMESTAMPTZ, value, BERLIN, "f") is None


@each_row("kind", [kind for kind in Kind if kind not in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ)])
def test_other_columns_have_no_days(kind: Kind) -> None:
    assert day_of(kind, "2026-10-31", BERLIN, "f") is None
    assert without_zone(kind, "2026-10-31T12:00[Europe/Berlin]", "f") == "2026-10-31T12:00[Europe/Berlin]"


@pytest.mark.parametrize("name", ["Europe/Berln", "localtime", "EUROPE/BERLIN", "posixrules/x"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match=r"filters\.at\.lte: there is no time zone"):
        day_of(Kind.TIMESTAMPTZ, f"2026-10-31[{name}]", BERLIN, "filters.at.lte")
    with pytest.raises(Rejected, match=r"options\.timezone: there is no time zone"):
        day_zone(name)


def test_the_zone_of_the_request_comes_before_that_of_the_dataset() -> None:
    assert day_zone("Asia/Tokyo", "Europe/Berlin").key == "Asia/Tokyo"
    assert day_zone(None, "Europe/Berlin").key == "Europe/Berlin"
    assert day_zone(None, None).key == "UTC"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-10-31T12:30[Europe/Berlin]", "2026-10-31T11:30:00+00:00"),
        ("2026-07-31 12:30:15.123456789[Europe/Berlin]", "2026-07-31T10:30:15.123456789+00:00"),
        ("2026-10-31T12:30+01:00[Europe/Berlin]", "2026-10-31T12:30+01:00"),
        ("2026-10-31T12:30", "2026-10-31T12:30"),
        ("x[Europe/Berlin]", "x[Europe/Berlin]"),
        (5, 5),
    ],
)
def test_a_local_time_can_name_its_zone(value: Any, expected: Any) -> None:
    assert without_zone(Kind.TIMESTAMPTZ, value, "f") == expected


@each_row(
    ("value", "accepted"),
    [
        ("2026-01-31T12:00+01:00[Europe/Berlin]", True),
        ("2026-07-31T12:00+02:00[Europe/Berlin]", True),
        ("2026-10-25T02:30+01:00[Europe/Berlin]", True),
        ("2026-10-25T02:30+02:00[Europe/Berlin]", True),
        ("2026-01-31T12:00Z[Europe/Berlin]", True),
        ("2026-01-31T12:00+05:00[Europe/Berlin]", False),
        ("2026-07-31T12:00+01:00[Europe/Berlin]", False),
        ("2026-01-31T12:00+00:00[Europe/Berlin]", False),
    ],
)
def test_an_offset_is_that_of_the_zone(value: str, accepted: bool) -> None:
    """V4: RFC 9557, section 3.4. Otherwise one of the two would be ignored."""
    now, parameters = NOW, {"at": Parameter(type="timestamptz")}
    if accepted:
        assert without_zone(Kind.TIMESTAMPTZ, value, "f") == value.partition("[")[0]
        assert resolve_parameters({"at": value}, parameters, now, UTC_ZONE) == {"at": value.partition("[")[0]}
        return
    with pytest.raises(
        Rejected, match=r"^f: expected an offset that Europe/Berlin has at this time"
    ) as error:
        without_zone(Kind.TIMESTAMPTZ, value, "f")
    assert error.value.code == "bad_filter_value"
    with pytest.raises(Rejected) as error:
        resolve_parameters({"at": value}, parameters, now, UTC_ZONE)
    assert error.value.code == "bad_parameter_value"


@given(st.lists(st.dates(date(2026, 1, 1), date(2026, 2, 15)), min_size=1))
def test_joined_days_are_the_same_days(days: list[date]) -> None:
    def as_day(day: date) -> Day:
        return Day(day.isoformat(), (day + timedelta(days=1)).isoformat())

    found = merge_days(map(as_day, days))
    assert found == sorted(found)
    assert all(one.end < other.start for one, other in pairwise(found))
    for day in map(date.fromordinal, range(date(2025, 12, 30).toordinal(), date(2026, 2, 20).toordinal())):
        assert (day in days) == any(one.start <= day.isoformat() < one.end for one in found)


@pytest.mark.parametrize("zone", [UTC_ZONE, BERLIN, ZoneInfo("America/New_York")])
def test_the_last_day_of_the_calendar_is_not_lost_among_others(zone: ZoneInfo) -> None:
    """9999-12-31 often stands for "without an end"."""
    found = [day_of(Kind.TIMESTAMPTZ, f"9999-12-{day}", zone, "filters.x") for day in (30, 31)]
    first, last = filter(None, found)
    assert merge_days([last, first]) == [Day(first.start, last.end)]


@each_row(
    ("operator", "value", "expected"),
    [
        ("lte", "yesterday", "2026-10-24"),
        ("gt", "today-1w", "2026-10-18"),
        ("eq", "today", "2026-10-25"),
        ("ne", "tomorrow", "2026-10-26"),
        ("in", ["today", "now"], ["2026-10-25", "2026-10-25T12:00:00Z"]),
        ("gte", "today", "2026-10-24T22:00:00Z"),
        ("lt", "today", "2026-10-24T22:00:00Z"),
        ("lte", "now", "2026-10-25T12:00:00Z"),
        ("lte", "start_of_month", "2026-09-30T22:00:00Z"),
        ("lte", "today+6h", "2026-10-25T04:00:00Z"),
    ],
)
def test_today_and_its_neighbours_are_days(operator: str, value: Any, expected: Any) -> None:
    filters, kinds = {"at": {operator: value}}, {"at": Kind.TIMESTAMPTZ}
    same = resolve_filters(filters, kinds, NOW, BERLIN, day_default=BERLIN)
    assert same == {"at": {operator: expected}}
    other = resolve_filters({"at": {"lte": "yesterday"}}, {"at": Kind.TIMESTAMPTZ}, NOW, BERLIN)
    assert other == {"at": {"lte": "2026-10-24[Europe/Berlin]"}}
    assert resolve_filters({"at": "today"}, {"at": Kind.TIMESTAMPTZ}, NOW, UTC_ZONE) == {"at": "2026-10-25"}


def test_days_name_the_zone_that_they_would_not_have() -> None:
    filters = {
        "at": {"lte": "2026-10-31", "gt": "2026-10-01[UTC]", "in": ["2026-10-31", None, "2026-10-31T12:00Z"]},
        "on": "2026-10-31",
        "wall": "2026-10-31",
        "word": "2026-10-31",
    }
    kinds = {"at": Kind.TIMESTAMPTZ, "on": Kind.DATE, "wall": Kind.TIMESTAMP, "word": Kind.TEXT}
    assert with_zone(filters, kinds, BERLIN, BERLIN) == filters
    assert with_zone(filters, kinds, BERLIN, UTC_ZONE) == filters | {
        "at": {
            "lte": "2026-10-31[Europe/Berlin]",
            "gt": "2026-10-01[UTC]",
            "in": ["2026-10-31[Europe/Berlin]", None, "2026-10-31T12:00Z"],
        }
    }


@pytest.mark.parametrize(
    ("value", "zone", "expected"),
    [
        ("2026-10-31", "UTC", "2026-10-31"),
        ("2026-10-31", "Europe/Berlin", "2026-10-30T23:00:00+00:00"),
        ("2026-10-31[Europe/Berlin]", "UTC", "2026-10-30T23:00:00+00:00"),
        ("2026-10-31T12:00[Europe/Berlin]", "UTC", "2026-10-31T11:00:00+00:00"),
        ("2026-10-31T12:00Z", "Europe/Berlin", "2026-10-31T12:00Z"),
        (None, "Europe/Berlin", None),
    ],
)
def test_a_day_of_a_parameter_is_its_beginning(value: Any, zone: str, expected: Any) -> None:
    free, chosen = Parameter(type="timestamptz"), Parameter(type="timestamptz", choices=("2026-10-31",))
    parameters = {"since": free, "on": Parameter(type="date"), "chosen": chosen}
    given = {"since": value, "on": "2026-10-31", "chosen": "2026-10-31"}
    found = resolve_parameters(given, parameters, NOW, ZoneInfo(zone))
    assert found == {"since": expected, "on": "2026-10-31", "chosen": "2026-10-31"}

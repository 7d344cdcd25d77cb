"""Calendars and windows in every zone: known days of change, and properties over ten years."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.exports.filters.local_time import DAY, SECOND, exists, start_of, wall_of
from stream_app.schedules.calendar import DAYS, LOOK_BACK, PERIODS, Calendar
from stream_app.schedules.windows import Windowing, period_before, window_of
from streaming_exporter.errors import Rejected
from tests.rows import each_row

MANUAL = Path(__file__).parents[3] / "docs" / "requests.md"
ZONES = sorted(available_timezones() - {"localtime"})
YEARS = 10
EXAMPLES = settings().max_examples
"""The number of examples of the chosen profile."""

zones = st.sampled_from(ZONES)
times = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
moments = st.datetimes(datetime(2020, 1, 1), datetime(2029, 12, 31), timezones=st.just(UTC))
CRONS = [
    "30 2 * * *", "*/10 * * * *", "0 */6 * * *", "15,45 1-3 * * MON-FRI", "*/20 2 * * SUN", "0 0 1 * *",
    "5 * * * *", "59 23 L * *", "0 3 29 2 *", "0 12 * * MON#1",
]  # fmt: skip


@st.composite
def calendars(draw: st.DrawFn) -> Calendar:
    schedule = draw(st.sampled_from(PERIODS))
    day = draw(st.sampled_from(DAYS[schedule])) if schedule in DAYS else None
    return Calendar.of(schedule, timezone=draw(zones), time_of_day=draw(times), day=day)


any_calendar = calendars() | st.builds(
    lambda cron, zone: Calendar.of(cron, timezone=zone), st.sampled_from(CRONS), zones
)


def upcoming(calendar: Calendar, moment: datetime, count: int) -> list[datetime]:
    """Return the next ``count`` runs."""
    return list(islice(calendar.after(moment), count))


@settings(max_examples=4 * EXAMPLES, deadline=None)
@given(any_calendar, moments)
def test_runs_are_in_the_future_and_strictly_in_order(calendar: Calendar, moment: datetime) -> None:
    runs = upcoming(calendar, moment, 8)
    assert runs[0] > moment
    assert all(first < second for first, second in pairwise(runs))
    assert all(run.second == 0 for run in (wall_of(run, calendar.zone) for run in runs))
    assert calendar.next_run(runs[0]) == runs[1]
    assert calendar.next_run(runs[3] - timedelta(seconds=1)) == runs[3]
    assert calendar.previous(runs[4]) == runs[3]
    assert calendar.latest(moment, runs[5], 3) == runs[3:6]


GAPS = ["* * * 12,1-5 *", "* * 1 1 *", "* 0-22 * 2 *", "*/7 3 29 2 *", *CRONS]
"""Expressions, of which some have many runs in one month and none in others."""


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(GAPS), zones, moments, st.integers(1, 9))
def test_the_latest_runs_are_found_without_a_search_of_earlier_ones(
    cron: str, zone: str, moment: datetime, count: int
) -> None:
    steps = 0

    class Counted(CronSim):
        def __next__(self) -> datetime:
            nonlocal steps
            steps += 1
            return super().__next__()

    calendar = Calendar.of(cron, timezone=zone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream_app.schedules.cron.CronSim", Counted)
        found = calendar.latest(moment - LOOK_BACK, moment, count)
        taken, steps = steps, 0
    start = found[0] - DAY if found else moment - LOOK_BACK
    assert found == list(takewhile(lambda run: run <= moment, calendar.after(start)))[-count:]
    assert taken <= 4 * count + 200, "two hours of minutes, where clocks are set back"


@settings(max_examples=EXAMPLES // 4, deadline=None)
@given(zones, times, st.integers(2020, 2028))
def test_each_local_day_of_two_years_has_exactly_one_daily_run(zone: str, at: str, year: int) -> None:
    calendar = Calendar.of("daily", timezone=zone, time_of_day=at)
    days = [calendar.day_of(run) for run in upcoming(calendar, datetime(year, 1, 1, tzinfo=UTC), 365 * 2)]
    expected, day = [], days[0]
    while day <= days[-1]:
        if exists(day, calendar.zone):
            expected.append(day)
        day += DAY
    assert days == expected


NIGHTS = [datetime(2020, 1, 1) + count * 7 * DAY for count in range(53 * YEARS)]
"""Local midnights of ten years, one a week: no two changes of a zone are closer."""

Change = tuple[datetime, timedelta, timedelta]


def changes(zone: ZoneInfo) -> Iterator[Change]:
    """Yield each change of the offset: the instant, to the second, the offset before and the one after."""
    for (night, before), (next_night, after) in pairwise(
        zip(NIGHTS, map(zone.utcoffset, NIGHTS), strict=True)
    ):
        if before is not None and after is not None and before != after:
            low, high = (
                (wall - offset).replace(tzinfo=UTC) for wall, offset in ((night, before), (next_night, after))
            )
            while high - low > SECOND:
                middle = low + (high - low) // SECOND // 2 * SECOND
                if middle.astimezone(zone).utcoffset() == before:
                    low = middle
                else:
                    high = middle
            yield high, before, after


def test_every_zone_at_its_changes() -> None:
    """Around each change of the clocks in ten years: one run a day, windows without gap or overlap.

    Changes of the same offsets at the same time of day, such as those of Zurich and Berlin or of two years,
    differ in names and days only. One of them is examined.
    """
    alike = {
        ((change + before).time(), before, after): (zone, change)
        for zone in ZONES
        for change, before, after in changes(ZoneInfo(zone))
    }
    assert len(alike) > 40
    for zone, change in alike.values():
        examine(zone, change)


def examine(zone: str, change: datetime) -> None:
    info = ZoneInfo(zone)
    for at in ("00:00", "02:30", "23:45"):
        calendar = Calendar.of("daily", timezone=zone, time_of_day=at)
        runs = upcoming(calendar, change - 3 * DAY, 6)
        days = [calendar.day_of(run) for run in runs]
        assert days == [days[0] + count * DAY for count in range(6)] or not all(
            exists(days[0] + count * DAY, info) for count in range(6)
        ), (zone, change, at)
        windows = [period_before(calendar, run) for run in runs]
        assert all(first.end == second.start for first, second in pairwise(windows)), (zone, change, at)
        assert [wall_of(window.end, info).date() for window in windows] == days, (zone, change, at)


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(any_calendar, moments, st.sampled_from([Windowing.PREVIOUS_PERIOD, Windowing.SINCE_LAST_RUN]))
def test_windows_have_no_gaps_and_no_overlaps_with_or_without_window_start(
    calendar: Calendar, moment: datetime, windowing: Windowing
) -> None:
    runs = upcoming(calendar, moment, 6)
    natural = [window_of(windowing, calendar, run, None) for run in runs]
    window_start, marked = natural[0].start if natural[0] else None, []
    for run in runs:
        window = window_of(windowing, calendar, run, window_start)
        assert window is not None
        marked.append(window)
        window_start = window.end
    assert marked == natural
    assert all(first.end == second.start < second.end for first, second in pairwise(marked))
    assert all(window.end <= run for window, run in zip(marked, runs, strict=True))


@settings(max_examples=3 * EXAMPLES // 2, deadline=None)
@given(zones, times, moments)
def test_croniter_agrees_where_the_clocks_do_not_change(zone: str, at: str, moment: datetime) -> None:
    """The libraries differ at changes of clocks, so only days without a change are compared."""
    info, (hour, minute) = ZoneInfo(zone), at.split(":")
    theirs = croniter(f"{int(minute)} {int(hour)} * * *", moment.astimezone(info))
    calendar = Calendar.of("daily", timezone=zone, time_of_day=at)
    cron = Calendar.of(f"{int(minute)} {int(hour)} * * *", timezone=zone)
    found = [run.astimezone(UTC) for run in (theirs.get_next(datetime) for _ in range(5))]
    offsets = {info.utcoffset((moment + hours * timedelta(hours=1)).astimezone(info)) for hours in range(150)}
    if len(offsets) == 1:
        assert upcoming(calendar, moment, 5) == found
    assert upcoming(cron, moment, 5) == upcoming(calendar, moment, 5)


BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
CASABLANCA, TEHRAN, NUUK, APIA = "Africa/Casablanca", "Asia/Tehran", "America/Nuuk", "Pacific/Apia"


@each_row(
    ("schedule", "zone", "at", "after", "runs"),
    [
        # 02:00 to 03:00 is skipped: 03:00 is the first minute after it.
        ("daily", BERLIN, "02:30", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        ("30 2 * * *", BERLIN, None, "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        # 02:00 to 03:00 occurs twice: the first one counts.
        ("daily", BERLIN, "02:30", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("30 2 * * *", BERLIN, None, "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("30 2 * * *", BERLIN, None, "2026-10-25T00:45Z", ["2026-10-26T01:30Z"]),
        # Every hour and every half hour follow elapsed time.
        ("0 * * * *", BERLIN, None, "2026-10-24T23:30Z", ["2026-10-25T00:00Z", "2026-10-25T01:00Z"]),
        ("*/30 * * * *", BERLIN, None, "2026-03-29T00:30Z", ["2026-03-29T01:00Z", "2026-03-29T01:30Z"]),
        # A few times within the skipped hour are one run.
        ("*/20 2 * * *", BERLIN, None, "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:00Z"]),
        ("daily", NEW_YORK, "02:15", "2026-03-07T12:00Z", ["2026-03-08T07:00Z", "2026-03-09T06:15Z"]),
        ("daily", NEW_YORK, "01:15", "2026-10-31T12:00Z", ["2026-11-01T05:15Z", "2026-11-02T06:15Z"]),
        # Half an hour is skipped or occurs twice.
        ("daily", LORD_HOWE, "02:15", "2026-10-03T00:00Z", ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
        ("daily", LORD_HOWE, "01:45", "2026-04-04T00:00Z", ["2026-04-04T14:45Z", "2026-04-05T15:15Z"]),
        # The clocks go back before Ramadan and forward after it.
        ("daily", CASABLANCA, "02:30", "2026-02-14T12:00Z", ["2026-02-15T01:30Z", "2026-02-16T02:30Z"]),
        ("daily", CASABLANCA, "02:30", "2026-03-21T12:00Z", ["2026-03-22T02:00Z", "2026-03-23T01:30Z"]),
        # Until 2022 clocks changed at midnight; there is no summer time any more.
        ("daily", TEHRAN, "00:30", "2022-03-20T22:00Z", ["2022-03-21T20:30Z", "2022-03-22T20:00Z"]),
        ("daily", TEHRAN, "23:30", "2022-09-20T22:00Z", ["2022-09-21T19:00Z", "2022-09-22T20:00Z"]),
        ("daily", TEHRAN, "00:30", "2026-03-20T22:00Z", ["2026-03-21T21:00Z", "2026-03-22T21:00Z"]),
        # The skipped hour is the last one of a Saturday: its run is on Sunday, before that of Sunday.
        ("daily", NUUK, "23:30", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
        # There was no 30 December 2011 there.
        ("daily", APIA, "09:00", "2011-12-29T12:00Z", ["2011-12-29T19:00Z", "2011-12-30T19:00Z"]),
    ],
)
def test_known_days_of_change(schedule: str, zone: str, at: str | None, after: str, runs: list[str]) -> None:
    calendar = Calendar.of(schedule, timezone=zone, time_of_day=at)
    found = upcoming(calendar, datetime.fromisoformat(after), len(runs))
    assert [f"{run:%Y-%m-%dT%H:%MZ}" for run in found] == runs


def test_the_31st_is_the_last_day_of_each_month() -> None:
    calendar = Calendar.of("monthly", time_of_day="06:00", day=31)
    runs = upcoming(calendar, datetime(2028, 1, 15, tzinfo=UTC), 4)
    assert [run.date() for run in runs] == [
        date(2028, 1, 31), date(2028, 2, 29), date(2028, 3, 31), date(2028, 4, 30),
    ]  # fmt: skip


def test_periods_are_local_days_weeks_and_months() -> None:
    zone, run = ZoneInfo(BERLIN), datetime(2026, 4, 1, 7, tzinfo=UTC)
    for schedule, first, end in [
        ("daily", date(2026, 3, 31), date(2026, 4, 1)),
        ("weekly", date(2026, 3, 23), date(2026, 3, 30)),
        ("monthly", date(2026, 3, 1), date(2026, 4, 1)),
    ]:
        window = period_before(Calendar.of(schedule, timezone=BERLIN), run)
        assert (window.start, window.end) == (start_of(first, zone), start_of(end, zone))


def test_a_long_pause_is_not_searched_run_by_run() -> None:
    calendar = Calendar.of("* * * * *")
    until = datetime(2026, 1, 1, tzinfo=UTC)
    assert calendar.latest(until - 3_650 * DAY, until, 2) == [until - timedelta(minutes=1), until]


@each_row(
    ("changes", "field"),
    [
        ({"schedule": "hourly"}, "schedule"),
        ({"schedule": "61 * * * *"}, "schedule"),
        ({"schedule": "0 0 30 2 *"}, "schedule"),
        ({"schedule": "0 0 * * * *"}, "schedule"),
        ({"schedule": ""}, "schedule"),
        ({"timezone": "Europe/Atlantis"}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"time_of_day": "24:00"}, "time_of_day"),
        ({"time_of_day": "9:00"}, "time_of_day"),
        ({"day": 1}, "day"),
        ({"schedule": "weekly", "day": 7}, "day"),
        ({"schedule": "monthly", "day": 0}, "day"),
        ({"schedule": "0 9 * * *", "time_of_day": "09:00"}, "time_of_day"),
        ({"schedule": "0 9 * * *", "day": 1}, "day"),
    ],
)
def test_an_invalid_value_is_refused_with_its_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(Rejected) as caught:
        Calendar.of(**{"schedule": "daily", **changes})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("30 6 * * MON-FRI", ["11-30", "12-01", "12-02"]),
        ("0 9 1 * MON", ["11-30", "12-01", "12-07"]),
        ("0 9 1-7 * */7", ["12-06", "01-03", "02-07"]),
        ("0 9 L * *", ["11-30", "12-31", "01-31"]),
        ("0 9 LW * *", ["11-30", "12-31", "01-29"]),
        ("0 9 * * FRI#5", ["01-29", "04-30", "07-30"]),
        ("0 9 * * 5L", ["12-25", "01-29", "02-26"]),
    ],
)
def test_expressions_of_the_manual(expression: str, days: list[str]) -> None:
    assert f"`{expression}`" in MANUAL.read_text()
    runs = upcoming(Calendar.of(expression), datetime(2026, 11, 28, tzinfo=UTC), 3)
    assert [f"{run:%m-%d}" for run in runs] == days


SPELLINGS = {
    "every hour": (
        "0 * * * *", "0 */1 * * *", "0 0-23 * * *", "0 0-23/1 * * *", "00 * * * *", "0 0-11,12-23 * * *",
        "0 " + ",".join(map(str, range(24))) + " * * *", "0 *,5 * * *", "0 * */1 */1 */1", "0 * * 1-12 *",
    ),
    "every ten minutes": (
        "*/10 * * * *", "0-59/10 */1 * * *", "0,10,20,30,40,50 0-23 * * *", "*/10 0-23/1 * * *",
    ),
    "at half past each second hour": (
        "30 */2 * * *", "30 0-23/2 * * *", "30 0,2,4,6,8,10,12,14,16,18,20,22 * * *",
    ),
    "at night": ("30 2 * * *", "30 2-2 * * *", "30 2,2 * * *", "30 2 */1 * *", "30 2 * JAN-DEC *"),
}  # fmt: skip


@given(
    zone=st.sampled_from(ZONES),
    change=st.sampled_from((datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1), datetime(2026, 4, 4, 15))),
    hours=st.integers(-48, 48),
    meaning=st.sampled_from(sorted(SPELLINGS)),
)
@settings(max_examples=3 * EXAMPLES // 5, deadline=None)
def test_equal_expressions_have_the_same_runs_in_every_spelling(
    zone: str, change: datetime, hours: int, meaning: str
) -> None:
    """V21: `0 */1 * * *` equals `0 * * * *`, also in the hour that occurs twice."""
    moment = change.replace(tzinfo=UTC) + timedelta(hours=hours)
    first, *others = (
        upcoming(Calendar.of(spelling, timezone=zone), moment, 30) for spelling in SPELLINGS[meaning]
    )
    assert all(runs == first for runs in others)
    if meaning == "every hour" and "Lord_Howe" not in zone:
        assert {later - earlier for earlier, later in pairwise(first)} == {timedelta(hours=1)}

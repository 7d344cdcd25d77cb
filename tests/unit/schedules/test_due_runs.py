"""The windows of runs that are due late, and the runs that are announced and left out."""

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice, pairwise

import pytest

from stream_app.exports.filters.local_time import DAY
from stream_app.schedules.calendar import Calendar
from stream_app.schedules.due_runs import CatchUp, plan_due_runs, upcoming_runs
from stream_app.schedules.windows import Windowing, period_before
from tests.rows import each_row

BERLIN = "Europe/Berlin"


@each_row("schedule", ["daily", "weekly", "monthly", "0 */6 * * *"])
@each_row("catch_up", list(CatchUp))
@each_row("late", [0, 1, 90])
def test_the_first_window_begins_with_the_period_of_the_run_that_was_due_first(
    schedule: str, catch_up: CatchUp, late: int
) -> None:
    calendar = Calendar.of(schedule, timezone=BERLIN)
    first = calendar.next_run(datetime(2026, 11, 1, 9, tzinfo=UTC))
    until = first + late * DAY + timedelta(minutes=30)
    plan = partial(plan_due_runs, windowing=Windowing.PREVIOUS_PERIOD, catch_up=catch_up, limit=3)
    begin, runs, due = None, [], first
    for at in (until, until + 40 * DAY, until + 80 * DAY):
        found = plan(calendar, next_run=due, until=at, window_start=begin)
        begin, due = found.window_start, found.next_run
        runs += [run.window for run in found.runs if run.window is not None]
    last = plan(calendar, next_run=due, until=due, window_start=begin)
    runs += [run.window for run in last.runs if run.window is not None]
    assert runs[0].start == period_before(calendar, first).start
    assert all(one.end == other.start for one, other in pairwise(runs))
    assert runs[-1].end == period_before(calendar, due).end


@pytest.mark.parametrize("schedule", ["daily", "weekly", "monthly", "0 */6 * * *"])
@pytest.mark.parametrize("windowing", [Windowing.PREVIOUS_PERIOD, Windowing.SINCE_LAST_RUN])
@pytest.mark.parametrize("catch_up", list(CatchUp))
def test_runs_before_the_begin_of_the_next_window_are_left_out(
    schedule: str, windowing: Windowing, catch_up: CatchUp
) -> None:
    calendar = Calendar.of(schedule, timezone=BERLIN)
    begin = datetime(2027, 1, 6, 10, tzinfo=UTC)
    start, due = begin, calendar.next_run(datetime(2026, 12, 20, 9, tzinfo=UTC))
    windows = []
    while due < begin + 60 * DAY:
        found = plan_due_runs(
            calendar,
            next_run=due,
            until=due,
            window_start=start,
            windowing=windowing,
            catch_up=catch_up,
            limit=3,
        )
        assert found.next_run > due
        assert found.takes_place
        assert found.window_start is not None
        start, due = found.window_start, found.next_run
        windows += [run.window for run in found.runs if run.window is not None]
    assert windows[0].start == begin
    assert all(window.start < window.end for window in windows)
    assert all(one.end == other.start for one, other in pairwise(windows))


@each_row("schedule", ["daily", "weekly", "monthly", "0 */6 * * *"])
@each_row("windowing", list(Windowing))
@each_row("begin", [None, datetime(2027, 1, 6, 10, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC)])
def test_the_runs_that_are_announced_are_those_that_take_place(
    schedule: str, windowing: Windowing, begin: datetime | None
) -> None:
    calendar = Calendar.of(schedule, timezone=BERLIN)
    now = datetime(2026, 11, 1, 9, tzinfo=UTC)
    first = calendar.next_run(now)
    announced = upcoming_runs(calendar, next_run=first, now=now, window_start=begin, windowing=windowing)
    start, due = begin, first
    taken: list[datetime] = []
    left_out: list[datetime] = []
    while len(taken) < 5:
        found = plan_due_runs(
            calendar,
            next_run=due,
            until=due,
            window_start=start,
            windowing=windowing,
            catch_up=CatchUp.LAST,
            limit=1,
        )
        assert len(found.runs) + len(found.left_out) == 1
        taken += [run.at for run in found.runs]
        left_out += found.left_out
        start, due = found.window_start, found.next_run
    assert list(islice(announced, 5)) == taken
    assert bool(left_out) == (windowing is not Windowing.NONE and begin is not None and begin > now)


def test_a_weekly_run_after_a_change_of_the_weekday_is_not_announced() -> None:
    """The run of Monday the 7th has exported the week before. That of Wednesday has nothing new."""
    calendar, monday = Calendar.of("weekly", day=2), datetime(2026, 12, 7, tzinfo=UTC)
    runs = upcoming_runs(
        calendar,
        next_run=datetime(2026, 12, 9, tzinfo=UTC),
        now=monday + timedelta(hours=1),
        window_start=monday,
        windowing=Windowing.PREVIOUS_PERIOD,
    )
    assert next(runs) == datetime(2026, 12, 16, tzinfo=UTC)


def test_runs_before_a_begin_that_is_far_away_are_not_searched_one_by_one() -> None:
    begin, due = datetime(2099, 1, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
    calendar = Calendar.of("* * * * *")
    runs = upcoming_runs(
        calendar, next_run=due, now=due, window_start=begin, windowing=Windowing.SINCE_LAST_RUN
    )
    assert next(runs) == begin + timedelta(minutes=1)

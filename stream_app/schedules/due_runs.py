"""Computes which runs of a schedule take place: due runs and upcoming ones. Pure: no clock, no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import chain

from stream_app.schedules.calendar import Calendar
from stream_app.schedules.windows import Window, Windowing, window_of

MISSED_AFTER = timedelta(minutes=5)
"""A run that starts later than this counts as missed."""


class CatchUp(StrEnum):
    """Which of the runs that were missed take place: the last one, all, or none."""

    LAST = "last"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Run:
    """One run.

    Attributes:
        at: the minute at which it is due.
        window: the time range that it exports, or ``None``.
        is_repeat: True if the run exports an earlier run's window again. It does not advance
            ``window_start``.
        is_gap: True if the run exports the window of a gap, in addition to the regular run at that time.
    """

    at: datetime
    window: Window | None
    is_repeat: bool = False
    is_gap: bool = False


def earliest_start(run: Run, delay: int) -> datetime:
    """Return the earliest time at which a run can start, by the database's clock.

    Its minute and its window must have ended. ``delay`` is added: the seconds by which rows can arrive late.
    """
    end = run.at if run.window is None else max(run.at, run.window.end)
    return end + timedelta(seconds=delay)


@dataclass(frozen=True, slots=True)
class DueRuns:
    """The runs to start, and what the schedule stores for the next ones.

    Attributes:
        runs: the runs to start, oldest first.
        left_out: the times of due runs that start no job, because their windows end before ``window_start``.
        next_run: the new ``next_run`` of the schedule.
        window_start: the new ``window_start`` of the schedule.
        takes_place: whether at least one run was not missed.
    """

    runs: tuple[Run, ...]
    left_out: tuple[datetime, ...]
    next_run: datetime
    window_start: datetime | None
    takes_place: bool


@lru_cache(maxsize=4096)  # schedules that are due in one minute have few different calendars
def plan_due_runs(
    calendar: Calendar,
    *,
    next_run: datetime,
    until: datetime,
    window_start: datetime | None,
    windowing: Windowing,
    catch_up: CatchUp,
    limit: int,
) -> DueRuns:
    """Plan the runs that are due from ``next_run`` to ``until``: the latest ones, ``limit`` at most.

    Runs that are left out make no gap: the window of the first planned run begins at ``window_start``, or,
    if there was no run before, with the period of the run that was due first. A run whose window ends before
    the next one begins, such as one before the owner's ``window_from``, has no rows and is left out.
    """
    if window_start is None and (first := window_of(windowing, calendar, next_run, None)) is not None:
        window_start = first.start
    count = limit if catch_up is CatchUp.ALL else 1
    later = calendar.latest(next_run, until, count)
    due = [next_run, *later][-count:]
    if catch_up is CatchUp.NONE and until - due[-1] > MISSED_AFTER:
        due = []
    runs, left_out = [], []
    for at in due:
        window = window_of(windowing, calendar, at, window_start)
        if window is not None and window.is_empty:
            left_out.append(at)
            continue
        window_start = window.end if window else window_start
        runs.append(Run(at, window))
    next_run = calendar.next_run(until)
    return DueRuns(tuple(runs), tuple(left_out), next_run, window_start, takes_place=bool(due))


def upcoming_runs(
    calendar: Calendar,
    *,
    next_run: datetime,
    now: datetime,
    window_start: datetime | None,
    windowing: Windowing,
) -> Iterator[datetime]:
    """Yield when runs take place from ``next_run`` on, without those that :func:`plan_due_runs` leaves out.

    If ``next_run`` is over, the ones that follow are later than ``now``.
    """
    after = max(now, next_run)
    if windowing is not Windowing.NONE and window_start is not None:
        after = max(after, window_start)  # no window ends later than its run is due
    for at in chain([next_run], calendar.after(after)):
        window = window_of(windowing, calendar, at, window_start)
        if window is not None and window.is_empty:
            continue
        window_start = window.end if window else window_start
        yield at

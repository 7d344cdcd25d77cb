"""Computes the window of a run: the time range whose rows the run exports. Pure.

Windows are half open and follow each other without a gap: each begins where the one before it ended (the
schedule's ``window_start``). Pauses and missed runs make the next window longer.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

from stream_app.exports.columns import Kind
from stream_app.exports.local_time import DAY, exists, start_of
from stream_app.exports.relative_dates import as_filter_value
from stream_app.schedules.calendar import MONTHLY, WEEKLY, Calendar


class Windowing(StrEnum):
    """How the window of a run is computed."""

    NONE = "none"
    PREVIOUS_PERIOD = "previous_period"
    SINCE_LAST_RUN = "since_last_run"


@dataclass(frozen=True, slots=True)
class Window:
    """``[start, end)``, in UTC."""

    start: datetime
    end: datetime

    def limits(self, kind: Kind, zone: ZoneInfo) -> dict[str, str]:
        """Return the filter that limits a column of ``kind`` to the window.

        Dates are those of ``zone``. Times without a zone are read as UTC.
        """
        return {"gte": as_filter_value(self.start, kind, zone), "lt": as_filter_value(self.end, kind, zone)}


def window_of(
    windowing: Windowing, calendar: Calendar, run: datetime, window_start: datetime | None
) -> Window | None:
    """Return the window of the run at ``run``, where the window before it ended at ``window_start``."""
    match windowing:
        case Windowing.NONE:
            return None
        case Windowing.PREVIOUS_PERIOD:
            natural = period_before(calendar, run)
        case Windowing.SINCE_LAST_RUN:
            natural = Window(_previous(calendar, run), run)
    start = natural.start if window_start is None else window_start
    return Window(start, max(start, natural.end))


def period_before(calendar: Calendar, run: datetime) -> Window:
    """Return the local day, week (from Monday) or month before that of ``run``.

    With a cron expression the period is the time from the run before to ``run``.
    """
    if calendar.is_cron:
        return Window(_previous(calendar, run), run)
    first, before = _period(calendar, calendar.day_of(run))
    return Window(start_of(before, calendar.zone), start_of(first, calendar.zone))


def _period(calendar: Calendar, day: date) -> tuple[date, date]:
    """Return the first day of the period that contains ``day``, and of the period before it."""
    if calendar.schedule == WEEKLY:
        first = day - timedelta(days=day.weekday())
        return first, first - timedelta(days=7)
    if calendar.schedule == MONTHLY:
        first = day.replace(day=1)
        return first, (first - DAY).replace(day=1)
    before = day - DAY
    while not exists(before, calendar.zone):
        before -= DAY
    return day, before


def _previous(calendar: Calendar, run: datetime) -> datetime:
    return calendar.previous(run) or run


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
    """

    at: datetime
    window: Window | None
    is_repeat: bool = False


def earliest_start(run: Run, delay: int) -> datetime:
    """Return when a run can start, by the database's clock: after its minute and the end of its window.

    ``delay`` is added: how many seconds rows can arrive late.
    """
    end = run.at if run.window is None else max(run.at, run.window.end)
    return end + timedelta(seconds=delay)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs to start, oldest first, and the new ``next_run`` and ``window_start`` of the schedule."""

    runs: tuple[Run, ...]
    next_run: datetime
    window_start: datetime | None


@lru_cache(maxsize=4096)  # what is due in one minute has few calendars
def plan(
    calendar: Calendar,
    *,
    next_run: datetime,
    until: datetime,
    window_start: datetime | None,
    windowing: Windowing,
    catch_up: CatchUp,
    limit: int,
) -> Plan:
    """Plan the runs that are due from ``next_run`` to ``until``: the latest ones, ``limit`` at most.

    Runs that are left out make no gap: the window of the first planned run begins at ``window_start``.
    """
    count = limit if catch_up is CatchUp.ALL else 1
    later = calendar.latest(next_run, until, count)
    due = [next_run, *later][-count:]
    if catch_up is CatchUp.NONE and until - due[-1] > MISSED_AFTER:
        due = []
    runs = []
    for at in due:
        window = window_of(windowing, calendar, at, window_start)
        window_start = window.end if window else window_start
        runs.append(Run(at, window))
    return Plan(tuple(runs), calendar.next_run(until), window_start)

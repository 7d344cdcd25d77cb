"""Which part of the time line a run stands for. Pure.

Windows are half open and tile: each begins where the last one ended (the schedule's *mark*), whatever lay
between the two runs, so pauses and missed runs make a window longer and never leave a gap.
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
    """How a run's window is found."""

    NONE = "none"
    PREVIOUS_PERIOD = "previous_period"
    SINCE_LAST_RUN = "since_last_run"


@dataclass(frozen=True, slots=True)
class Window:
    """``[start, end)``, in UTC."""

    start: datetime
    end: datetime

    def limits(self, kind: Kind, zone: ZoneInfo) -> dict[str, str]:
        """The filter that keeps a column of ``kind`` within the window.

        Dates are those of ``zone``; times without a zone of their own are taken to be UTC.
        """
        return {"gte": as_filter_value(self.start, kind, zone), "lt": as_filter_value(self.end, kind, zone)}


def window_of(
    windowing: Windowing, calendar: Calendar, run: datetime, mark: datetime | None
) -> Window | None:
    """The window of the run at ``run`` where the last window ended at ``mark``."""
    match windowing:
        case Windowing.NONE:
            return None
        case Windowing.PREVIOUS_PERIOD:
            natural = period_before(calendar, run)
        case Windowing.SINCE_LAST_RUN:
            natural = Window(_previous(calendar, run), run)
    start = natural.start if mark is None else mark
    return Window(start, max(start, natural.end))


def period_before(calendar: Calendar, run: datetime) -> Window:
    """The whole local day, week (from Monday) or month before that of ``run``.

    A cron expression has no other period than from one run to the next.
    """
    if calendar.is_cron:
        return Window(_previous(calendar, run), run)
    first, before = _period(calendar, calendar.day_of(run))
    return Window(start_of(before, calendar.zone), start_of(first, calendar.zone))


def _period(calendar: Calendar, day: date) -> tuple[date, date]:
    """The first day of the period of ``day``, and that of the period before it."""
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
"""A run that is later than this was missed."""


class CatchUp(StrEnum):
    """What becomes of runs that were missed."""

    LAST = "last"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the minute it was due at, and the window that it stands for.

    ``again``: the window is another run's; this one has not moved the mark, and gives nothing back.
    """

    at: datetime
    window: Window | None
    again: bool = False


def starts_at(run: Run, delay: int) -> datetime:
    """When a run may start by the database's clock: ``delay`` after its minute and the end of its window.

    ``delay`` is how many seconds rows may arrive late.
    """
    end = run.at if run.window is None else max(run.at, run.window.end)
    return end + timedelta(seconds=delay)


@dataclass(frozen=True, slots=True)
class Plan:
    """Runs to start, oldest first; when the next one is due; where the next window begins."""

    runs: tuple[Run, ...]
    next_run: datetime
    mark: datetime | None


@lru_cache(maxsize=4096)  # what is due in one minute has few calendars
def plan(
    calendar: Calendar,
    *,
    next_run: datetime,
    until: datetime,
    mark: datetime | None,
    windowing: Windowing,
    catch_up: CatchUp,
    most: int,
) -> Plan:
    """The runs due from ``next_run`` to ``until``, at ``most`` as many of them: the latest.

    What is left out is no gap: the window of the first run reaches back to the mark.
    """
    count = most if catch_up is CatchUp.ALL else 1
    later = calendar.latest(next_run, until, count)
    due = [next_run, *later][-count:]
    if catch_up is CatchUp.NONE and until - due[-1] > MISSED_AFTER:
        due = []
    runs = []
    for at in due:
        window = window_of(windowing, calendar, at, mark)
        mark = window.end if window else mark
        runs.append(Run(at, window))
    return Plan(tuple(runs), calendar.next_run(until), mark)

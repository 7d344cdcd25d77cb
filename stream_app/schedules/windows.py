"""Computes the window of a run: the time range whose rows it exports. Pure: no clock, no I/O.

Windows are half open and follow each other without a gap: each begins where the one before it ended (the
schedule's ``window_start``). Pauses and missed runs make the next window longer.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from stream_app.exports.columns import Kind
from stream_app.exports.filters.local_time import DAY, exists, start_of
from stream_app.exports.filters.relative_dates import as_filter_value
from stream_app.schedules.calendar import MONTHLY, WEEKLY, Calendar


class Windowing(StrEnum):
    """How the window of a run is computed."""

    NONE = "none"
    PREVIOUS_PERIOD = "previous_period"
    SINCE_LAST_RUN = "since_last_run"


@dataclass(frozen=True, slots=True)
class Window:
    """The time range from ``start`` until before ``end``, in UTC."""

    start: datetime
    end: datetime

    @property
    def is_empty(self) -> bool:
        """Whether there is no time in the window."""
        return self.start >= self.end

    def limits(self, kind: Kind, zone: ZoneInfo) -> dict[str, str]:
        """Return the filter that limits a column of ``kind`` to the window.

        Dates are those of ``zone``. Times without a zone are read as UTC.
        """
        return {"gte": as_filter_value(self.start, kind, zone), "lt": as_filter_value(self.end, kind, zone)}


def window_of(
    windowing: Windowing, calendar: Calendar, run: datetime, window_start: datetime | None
) -> Window | None:
    """Return the window of the run at ``run``, where the window before it ended at ``window_start``."""
    if windowing is Windowing.NONE:
        return None
    if windowing is Windowing.PREVIOUS_PERIOD and not calendar.is_cron:
        natural = period_before(calendar, run)
    elif window_start is None:
        natural = Window(_run_before(calendar, run), run)
    else:
        natural = Window(window_start, run)
    start = natural.start if window_start is None else window_start
    return Window(start, max(start, natural.end))


def period_before(calendar: Calendar, run: datetime) -> Window:
    """Return the local day, week (from Monday) or month before that of ``run``.

    With a cron expression the period is the time from the run before to ``run``.
    """
    if calendar.is_cron:
        return Window(_run_before(calendar, run), run)
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


def _run_before(calendar: Calendar, run: datetime) -> datetime:
    """Return the run before ``run``, or ``run`` if there is none."""
    return calendar.previous(run) or run

"""Which part of the time line a run stands for. Pure.

Windows are half open and tile: each begins where the last one ended (the schedule's *mark*), whatever lay
between the two runs, so pauses and missed runs make a window longer and never leave a gap.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from stream_app.exports.columns import Kind
from stream_app.schedules.calendar import MONTHLY, WEEKLY, Calendar
from stream_app.schedules.localtime import DAY, exists, start_of, wall_of


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
        return {"gte": written(self.start, kind, zone), "lt": written(self.end, kind, zone)}


def written(moment: datetime, kind: Kind, zone: ZoneInfo) -> str:
    """``moment`` as a filter's value for a column of ``kind``."""
    if kind is Kind.DATE:
        return wall_of(moment, zone).date().isoformat()
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


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

"""Computes when a schedule runs: daily, weekly, monthly, or by a cron expression. Pure: no clock, no I/O.

When clocks change: a run at a time that does not exist takes place at the first minute after it. A run at a
time that exists twice takes place the first time. For cron expressions see :mod:`stream_app.schedules.cron`.
"""

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import islice, takewhile
from typing import Self
from zoneinfo import ZoneInfo

from stream_app.exports.filters.local_time import DAY, SECOND, exists, instant, wall_of
from stream_app.schedules.cron import InvalidCron, cron_runs_after, cron_runs_before, is_ever_due, parse_cron
from stream_app.time_zones import check_zone_name
from streaming_exporter.errors import Rejected

DAILY, WEEKLY, MONTHLY = "daily", "weekly", "monthly"
PERIODS = (DAILY, WEEKLY, MONTHLY)

DAYS: dict[str, range] = {WEEKLY: range(7), MONTHLY: range(1, 32)}
"""Allowed values of ``day``: a weekday from 0 (Monday), or a day of the month, where 31 is the last day."""

_LONGEST = {DAILY: DAY, WEEKLY: 7 * DAY, MONTHLY: 31 * DAY}
"""The longest time between two runs, where no clocks change."""

LOOK_BACK = timedelta(days=9 * 366)
"""More than the longest time between two runs, eight years between two 29ths of February."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The times at which a schedule runs. ``schedule`` is one of :data:`PERIODS` or a cron expression."""

    schedule: str
    zone: ZoneInfo
    at: time = time()
    day: int | None = None

    @classmethod
    def of(
        cls, schedule: str, *, timezone: str = "UTC", time_of_day: str | None = None, day: int | None = None
    ) -> Self:
        """Return the calendar with these values.

        Raises:
            Rejected: a value is not valid. The text names the field.
        """
        zone = _zone(timezone)
        if schedule in PERIODS:
            return cls(schedule, zone, _time(time_of_day or "00:00"), _day(schedule, day))
        for field, value in (("time_of_day", time_of_day), ("day", day)):
            if value is not None:
                raise Rejected("a cron expression contains this; leave the field out", field=field)
        return cls(_cron(schedule), zone)

    @property
    def is_cron(self) -> bool:
        """Whether the schedule is a cron expression."""
        return self.schedule not in PERIODS

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield every run later than ``moment``, in UTC, in order."""
        last = moment
        for run in self._runs_from(moment):
            if run > last:
                yield run
                last = run

    def _runs_from(self, moment: datetime) -> Iterator[datetime]:
        """Yield the runs from about ``moment`` on. Some can be earlier."""
        if self.is_cron:
            return cron_runs_after(self.schedule, self.zone, moment)
        return self._period_runs(moment)

    def next_run(self, moment: datetime) -> datetime:
        """Return the first run later than ``moment``, in UTC."""
        return next(self.after(moment))

    def latest(self, after: datetime, until: datetime, count: int = 1) -> list[datetime]:
        """Return the last ``count`` runs in ``(after, until]``, oldest first."""
        steps = count
        while True:
            start = max(after, self._time_before_runs(until, steps) or after)
            found = list(takewhile(lambda run: run <= until, self.after(start)))
            if start == after or len(found) >= count:
                return found[-count:]
            steps *= 2  # where clocks change, the way back can have other runs

    def previous(self, run: datetime) -> datetime | None:
        """Return the last run before ``run``."""
        found = self.latest(run - LOOK_BACK, run - timedelta(microseconds=1))
        return found[0] if found else None

    def _time_before_runs(self, until: datetime, steps: int) -> datetime | None:
        """Return a time before the last ``steps`` runs until ``until``, or ``None`` if there are fewer."""
        if not self.is_cron:
            return until - (steps + 2) * _LONGEST[self.schedule]
        runs = (run for run in cron_runs_before(self.schedule, self.zone, until) if run <= until)
        first = next(islice(runs, steps - 1, None), None)
        return None if first is None else first - SECOND

    def day_of(self, run: datetime) -> date:
        """Return the local day of ``run``, even if a change of clocks moved the run into the next day."""
        shown = wall_of(run, self.zone).date()
        return next((day for day in (shown, shown - DAY) if self._run_of(day) == run), shown)

    def _run_of(self, day: date) -> datetime:
        return instant(datetime.combine(day, self.at), self.zone)

    def _period_runs(self, moment: datetime) -> Iterator[datetime]:
        for day in self._days(wall_of(moment, self.zone).date() - DAY):
            if self.schedule != DAILY or exists(day, self.zone):
                yield self._run_of(day)

    def _days(self, day: date) -> Iterator[date]:
        """Yield the days of runs from ``day`` on. Monthly runs begin with the month of ``day``."""
        if self.schedule == MONTHLY:
            while True:
                length = monthrange(day.year, day.month)[1]
                yield day.replace(day=min(self.day or 1, length))
                day = day.replace(day=1) + timedelta(days=length)
        step = timedelta(days=1 if self.schedule == DAILY else 7)
        if self.schedule == WEEKLY:
            day += timedelta(days=((self.day or 0) - day.weekday()) % 7)
        while True:
            yield day
            day += step


def _zone(name: str) -> ZoneInfo:
    check_zone_name(name, "timezone")
    return ZoneInfo(name)


def _time(text: str) -> time:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text, re.ASCII):
        raise Rejected(
            f"expected hours and minutes such as 09:30, got {text!r:.50}",
            code="bad_time_of_day",
            field="time_of_day",
        )
    return time.fromisoformat(text)


def _day(schedule: str, day: int | None) -> int | None:
    allowed = DAYS.get(schedule)
    if allowed is None:
        if day is not None:
            raise Rejected("a daily schedule has no day; leave the field out", code="bad_day", field="day")
        return None
    if day is None:
        return allowed.start
    if day not in allowed:
        meaning = (
            "from Monday"
            if schedule == WEEKLY
            else "31 is the last day of each month, and 29 and 30 are that of shorter ones"
        )
        raise Rejected(
            f"expected {allowed.start} to {allowed.stop - 1} ({meaning}), got {day}",
            code="bad_day",
            field="day",
        )
    return day


def _cron(schedule: str) -> str:
    try:
        expression = parse_cron(schedule)
    except InvalidCron as error:
        raise Rejected(
            f"{schedule!r:.100} is neither {', '.join(PERIODS)} nor a cron expression such as "
            f"'30 6 * * MON-FRI' ({error})",
            code="bad_schedule",
            field="schedule",
        ) from error
    if not is_ever_due(expression):
        raise Rejected(f"{schedule!r} is never due", code="bad_schedule", field="schedule")
    return expression

"""Computes when a schedule runs, and the window of each run: the time range whose rows it exports.

Pure: no clock, no I/O.

When clocks change: a run at an hour that does not exist takes place at the first minute after it. A run at an
hour that exists twice takes place the first time. Cron expressions that run in every hour (``*``, ``*/1``,
``0-23``) follow elapsed time instead, so that "every ten minutes" stays every ten minutes.

Days follow Debian's cron: if the day of the month or the day of the week begins with ``*``, both must match,
else at least one of them.

Windows are half open and follow each other without a gap: each begins where the one before it ended (the
schedule's ``window_start``). Pauses and missed runs make the next window longer.
"""

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from itertools import chain, islice, takewhile
from typing import Self
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from stream_app.exports.columns import Kind
from stream_app.exports.filters.local_time import DAY, SECOND, exists, instant, start_of, wall_of
from stream_app.exports.filters.relative_dates import as_filter_value
from stream_app.time_zones import check_zone_name
from streaming_exporter.errors import Rejected

DAILY, WEEKLY, MONTHLY = "daily", "weekly", "monthly"
PERIODS = (DAILY, WEEKLY, MONTHLY)

DAYS: dict[str, range] = {WEEKLY: range(7), MONTHLY: range(1, 32)}
"""Allowed values of ``day``: a weekday from 0 (Monday), or a day of the month, where 31 is the last day."""

_SOME_DAY = datetime(2026, 1, 1)
"""The day on which expressions are checked. The year does not matter, because they have no field for it."""

EVERY_HOUR = set(range(24))

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
        calendar = cls(_cron(schedule), zone)
        if next(calendar.after(_SOME_DAY.replace(tzinfo=UTC)), None) is None:
            raise Rejected(f"{schedule!r} is never due", code="bad_schedule", field="schedule")
        return calendar

    @property
    def is_cron(self) -> bool:
        """Whether the schedule is a cron expression."""
        return self.schedule not in PERIODS

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield every run later than ``moment``, in UTC, in order."""
        last = moment
        for run in self._cron_runs(moment) if self.is_cron else self._period_runs(moment):
            if run > last:
                yield run
                last = run

    def next_run(self, moment: datetime) -> datetime:
        """Return the first run later than ``moment``, in UTC."""
        return next(self.after(moment))

    def latest(self, after: datetime, until: datetime, count: int = 1) -> list[datetime]:
        """Return the last ``count`` runs in ``(after, until]``, oldest first."""
        steps = count
        while True:
            start = max(after, self._back(until, steps) or after)
            found = list(takewhile(lambda run: run <= until, self.after(start)))
            if start == after or len(found) >= count:
                return found[-count:]
            steps *= 2  # where clocks change, the way back can have other runs

    def previous(self, run: datetime) -> datetime | None:
        """Return the last run before ``run``."""
        found = self.latest(run - LOOK_BACK, run - timedelta(microseconds=1))
        return found[0] if found else None

    def _back(self, until: datetime, steps: int) -> datetime | None:
        """Return a time before the last ``steps`` runs until ``until``, or ``None`` if there are fewer."""
        if not self.is_cron:
            return until - (steps + 2) * _LONGEST[self.schedule]
        runs = (run for run in self._cron_runs_back(until) if run <= until)
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

    def _cron_runs(self, moment: datetime) -> Iterator[datetime]:
        walls = CronSim(self.schedule, wall_of(moment, self.zone))
        if walls.hours == EVERY_HOUR:
            minute, _, *days = self.schedule.split()
            for run in CronSim(" ".join((minute, "*", *days)), moment.astimezone(self.zone)):
                yield run.astimezone(UTC)
        else:
            for wall in walls:
                yield instant(wall, self.zone)

    def _cron_runs_back(self, until: datetime) -> Iterator[datetime]:
        """Yield the runs before ``until``, the latest first.

        Where clocks change, some are missing, and some are later than ``until``.
        """
        local = until.astimezone(self.zone).replace(microsecond=0) + SECOND
        shown = wall_of(until, self.zone).replace(microsecond=0) + SECOND
        walls = CronSim(self.schedule, shown + _repeated(until.astimezone(self.zone)), reverse=True)
        if walls.hours == EVERY_HOUR:
            minute, _, *days = self.schedule.split()
            for run in CronSim(" ".join((minute, "*", *days)), local, reverse=True):
                yield run.astimezone(UTC)
        else:
            for wall in walls:
                yield instant(wall, self.zone)


def _repeated(local: datetime) -> timedelta:
    """Return by how much clocks were set back if ``local`` exists twice and is the second one, else zero."""
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return first - second if local.fold and first and second else timedelta()


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


def _cron(expression: str) -> str:
    fields = expression.split()
    if len(fields) != len(CRON_FIELDS) or len(expression) > 200:
        raise _bad_schedule(expression, "it must have five fields")
    for place, (name, field) in enumerate(zip(CRON_FIELDS, fields, strict=True)):
        alone = ["*"] * len(fields)
        alone[place] = field
        if not _is_cron(" ".join(alone)):
            raise _bad_schedule(expression, f"its {name} {field!r:.50} is not valid")
    if not _is_cron(expression):
        raise _bad_schedule(expression, "there is no such day")
    return " ".join(fields)


CRON_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")


def _is_cron(expression: str) -> bool:
    try:
        CronSim(expression, _SOME_DAY)
    except CronSimError:
        return False
    return True


def _bad_schedule(expression: str, reason: str) -> Rejected:
    return Rejected(
        f"{expression!r:.100} is neither {', '.join(PERIODS)} nor a cron expression such as "
        f"'30 6 * * MON-FRI' ({reason})",
        code="bad_schedule",
        field="schedule",
    )


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
        natural = Window(_previous(calendar, run), run)
    else:
        natural = Window(window_start, run)
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
class Plan:
    """The runs to start, oldest first, and the new ``next_run`` and ``window_start`` of the schedule.

    ``takes_place`` is false if all runs were missed. If it is true, there can be no run nevertheless, because
    the next window begins later: then the times of these runs are ``left_out``.
    """

    runs: tuple[Run, ...]
    left_out: tuple[datetime, ...]
    next_run: datetime
    window_start: datetime | None
    takes_place: bool


@lru_cache(maxsize=4096)  # schedules that are due in one minute have few different calendars
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
        if window is not None and window.start >= window.end:
            left_out.append(at)
            continue
        window_start = window.end if window else window_start
        runs.append(Run(at, window))
    next_run = calendar.next_run(until)
    return Plan(tuple(runs), tuple(left_out), next_run, window_start, takes_place=bool(due))


def coming(
    calendar: Calendar,
    *,
    next_run: datetime,
    now: datetime,
    window_start: datetime | None,
    windowing: Windowing,
) -> Iterator[datetime]:
    """Yield when runs take place, from ``next_run`` on: the times that :func:`plan` does not leave out.

    If ``next_run`` is over, the ones that follow are later than ``now``.
    """
    after = max(now, next_run)
    if windowing is not Windowing.NONE and window_start is not None:
        after = max(after, window_start)  # no window ends later than its run is due
    for at in chain([next_run], calendar.after(after)):
        window = window_of(windowing, calendar, at, window_start)
        if window is not None and window.start >= window.end:
            continue
        window_start = window.end if window else window_start
        yield at

"""A month of a hundred schedules with faults, computed from a seed. Does no I/O."""

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Any
from uuid import UUID, uuid5

from tests.chaos.wall import Shows, WallClock

START, END = datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 4, 7, tzinfo=UTC)
"""The month. Clocks are set forward in America on 8 March, in Africa on 22 March, in Europe on 29 March.

They are set back in Chile on 4 April and in Australia on 5 April, on Lord Howe by half an hour.
"""

MARGIN = timedelta(days=45)
"""Time before and after the month whose runs are computed too."""

ZONES = (
    "UTC", "Europe/Berlin", "Europe/London", "America/New_York", "America/Santiago", "America/St_Johns",
    "Africa/Casablanca", "Asia/Kolkata", "Asia/Kathmandu", "Asia/Tokyo", "Australia/Lord_Howe",
    "Australia/Sydney",
)  # fmt: skip

WEEKDAYS, TWICE_A_MONTH, IN_THE_GAP = "30 6 * * MON-FRI", "0 9 1,15 * *", "*/15 2 * * SUN"
TWICE_A_DAY, HOURLY = "15 */12 * * *", "0 * 29 * *"

CRON: Mapping[str, Shows] = {
    WEEKDAYS: lambda wall: wall.weekday() < 5 and (wall.hour, wall.minute) == (6, 30),
    TWICE_A_MONTH: lambda wall: wall.day in (1, 15) and (wall.hour, wall.minute) == (9, 0),
    IN_THE_GAP: lambda wall: wall.weekday() == 6 and wall.hour == 2,
    TWICE_A_DAY: lambda wall: wall.hour in (0, 12) and wall.minute == 15,
    HOURLY: lambda wall: (wall.day, wall.minute) == (29, 0),
}

KINDS: Mapping[str, int] = {
    "daily": 6, "weekly": 36, "monthly": 36,
    WEEKDAYS: 3, TWICE_A_MONTH: 9, IN_THE_GAP: 4, TWICE_A_DAY: 1, HOURLY: 2,
}  # fmt: skip
"""The number of schedules of each kind: with each window and each ``catch_up``, of rare runs in all zones."""

CLOSE = (IN_THE_GAP, HOURLY)
"""Kinds that can have several runs between two ticks. All of these runs must be required."""

LONGEST_SILENCE = timedelta(hours=8)
"""The longest time without a tick, except for one: a schedule with catch_up "last" has one run in it."""

GREAT_SILENCE = timedelta(hours=50)
"""The one longer time without a tick. Every daily schedule has several runs in it."""


@dataclass(frozen=True)
class Standing:
    """One schedule. ``due`` has its runs, in UTC and in local time, also before and after the month."""

    id: UUID
    user_id: str
    schedule: str
    zone: str
    at: str | None
    day: int | None
    window: str
    catch_up: str
    recipients: Sequence[str]
    clock: WallClock

    @cached_property
    def due(self) -> dict[datetime, datetime]:
        shows = CRON.get(self.schedule) or _shows(self.schedule, self.at or "", self.day)
        return self.clock.due_by_passing_time(shows) if self.schedule == HOURLY else self.clock.due(shows)

    @property
    def row(self) -> dict[str, Any]:
        """Return the values of its columns, as the API would write them at the start of the month."""
        return {
            "id": self.id,
            "user_id": self.user_id,
            "export_type": "events",
            "format": "csv",
            "columns": ["n"],
            "schedule": self.schedule,
            "timezone": self.zone,
            "time_of_day": self.at,
            "day": self.day,
            "window": self.window,
            "window_start": START if self.window == "since_last_run" else None,
            "catch_up": self.catch_up,
            "email_recipients": list(self.recipients),
            "column_kinds": {"at": "timestamptz"},
            "next_run": self.next_run(START),
        }

    def next_run(self, moment: datetime) -> datetime:
        return min(run for run in self.due if run > moment)

    def runs(self, ticks: Sequence[datetime] = ()) -> list[datetime]:
        """Return the runs of the month. If only the latest is required, one run for each of ``ticks``."""
        runs = sorted(run for run in self.due if START < run <= END)
        if self.catch_up == "all" or not ticks:
            return runs
        return list({bisect_left(ticks, run): run for run in runs}.values())

    def windows(self, runs: Sequence[datetime]) -> list[tuple[datetime, datetime] | None]:
        """Return the window of each of ``runs``. It begins where the window before it ended."""
        if self.window == "none":
            return [None] * len(runs)
        ends = [self._ends(run) for run in runs]
        return list(zip([self._first_start(runs[0]), *ends], ends, strict=False)) if runs else []

    def _ends(self, run: datetime) -> datetime:
        if self.window == "since_last_run" or self.schedule in CRON:
            return run
        return self.clock.first(self._period(self.due[run]))

    def _first_start(self, run: datetime) -> datetime:
        if self.window == "since_last_run":
            return START
        if self.schedule in CRON:
            return max(before for before in self.due if before < run)
        return self.clock.first(self._period(self._period(self.due[run]) - timedelta(days=1)))

    def _period(self, wall: datetime) -> datetime:
        """Return the beginning of the day, the week or the month."""
        start = wall.replace(hour=0, minute=0)
        if self.schedule == "weekly":
            return start - timedelta(days=start.weekday())
        return start.replace(day=1) if self.schedule == "monthly" else start


def _shows(kind: str, at: str, day: int | None) -> Shows:
    time = tuple(map(int, at.split(":")))

    def shows(wall: datetime) -> bool:
        if (wall.hour, wall.minute) != time:
            return False
        if kind == "weekly":
            return wall.weekday() == day
        return kind == "daily" or wall.day == min(day or 0, monthrange(wall.year, wall.month)[1])

    return shows


@dataclass(frozen=True)
class Fault:
    """A ``worker`` or a ``ticker`` that is killed when the clock reaches ``at``."""

    at: datetime
    kind: str
    number: int


@dataclass(frozen=True)
class Month:
    """The plan. ``moments`` are the successive times of the clock; the ticks of ``lost`` are dropped."""

    orders: Sequence[Standing]
    moments: Sequence[datetime]
    lost: frozenset[datetime]
    silence: datetime
    """The time at which all tickers die, for :data:`GREAT_SILENCE`."""
    faults: Sequence[Fault]
    deaths: Mapping[UUID, str]
    """Ids of the jobs at which a worker dies, and the point of each."""


def month(seed: int, *, points: Sequence[str], alone: Sequence[str], workers: int, tickers: int) -> Month:
    """Plan a month. At each of ``points`` workers die twice; at those in ``alone`` with one recipient.

    Twice, because another death of the worker can come between a commit and the point after it. The other
    deaths come at times of the clock. All faults end before the month does, so that the tests can check that
    the remaining work is done.
    """
    random = Random(seed)
    orders = _orders(random)
    silence = START + timedelta(days=random.uniform(8, 12)) // timedelta(minutes=1) * timedelta(minutes=1)
    moments = _moments(random, orders, silence)
    faults = [
        *(Fault(_some_time(random, 0.1, 0.9), "ticker", random.randrange(tickers)) for _ in range(6)),
        *(Fault(_some_time(random, 0.1, 0.6), "worker", random.randrange(workers)) for _ in range(3)),
    ]
    return Month(
        orders,
        moments,
        _lost(random, moments),
        silence,
        sorted(faults, key=lambda fault: fault.at),
        _deaths(random, orders, points, alone, silence),
    )


def _orders(random: Random) -> list[Standing]:
    kinds = [(kind, place) for kind, count in KINDS.items() for place in range(count)]
    random.shuffle(kinds)
    clocks = {zone: WallClock(zone, START - MARGIN, END + MARGIN) for zone in ZONES}
    return [_order(random, number, *kind, clocks) for number, kind in enumerate(kinds)]


def _order(random: Random, number: int, kind: str, place: int, clocks: Mapping[str, WallClock]) -> Standing:
    """Return schedule ``number`` of all, which is number ``place`` of its kind."""
    # Clocks are changed in the early morning.
    hour = random.randrange(4) if random.random() < 0.5 else random.randrange(24)
    days = {"weekly": range(7), "monthly": (1, 15, 31)}.get(kind)
    zone = ZONES[number % len(ZONES)]
    return Standing(
        id=UUID(int=random.getrandbits(128), version=4),
        user_id=f"user-{number % 60}",
        schedule=kind,
        zone=zone,
        at=None if kind in CRON else f"{hour:02}:{random.choice(('00', '15', '30', '45'))}",
        day=random.choice(days) if days else None,
        window=("none", "previous_period", "since_last_run")[place // 2 % 3],
        catch_up="all" if kind in CLOSE else ("last", "all")[place % 2],
        recipients=[f"{number}-{place}@example.com" for place in range(random.choice((1, 1, 1, 1, 2, 3)))],
        clock=clocks[zone],
    )


def _moments(random: Random, orders: Sequence[Standing], silence: datetime) -> list[datetime]:
    """Return each minute with a due run, the minutes before and after it, and some random minutes.

    A tick has no effect if no run became due since the tick before. So these ticks test the same as all
    44,640 ticks of the month.
    """
    minute = timedelta(minutes=1)
    due = {run for order in orders for run in order.runs()}
    found = {run + offset for run in due for offset in (-minute, 0 * minute, minute)}
    found |= {START + timedelta(hours=2 * n, minutes=random.randrange(120)) for n in range(31 * 12)}
    heard = {at for at in found if START < at < END and not silence < at < silence + GREAT_SILENCE}
    return [*sorted(heard | {silence, silence + GREAT_SILENCE}), END]


def _lost(random: Random, moments: Sequence[datetime]) -> frozenset[datetime]:
    """Return a fifth of the moments, but never so many in a row that the clock would have to wait."""
    lost, last = set(), START
    for at, following in pairwise(moments):
        if random.random() < 0.2 and following - last < LONGEST_SILENCE / 2:
            lost.add(at)
        else:
            last = at
    return frozenset(lost)


def _deaths(
    random: Random,
    orders: Sequence[Standing],
    points: Sequence[str],
    alone: Sequence[str],
    silence: datetime,
) -> dict[UUID, str]:
    deaths: dict[UUID, str] = {}
    for point in (*points, *points):
        at = _some_time(random, 0.05, 0.6)
        while silence - timedelta(days=1) < at < silence + 2 * GREAT_SILENCE:
            at = _some_time(random, 0.05, 0.6)
        candidates = [order for order in orders if point not in alone or len(order.recipients) == 1]
        run, order = min(
            (
                (run, order)
                for order in candidates
                for run in order.runs()
                if run > at and job_of(order, run) not in deaths
            ),
            key=lambda found: (found[0], found[1].id),
        )
        deaths[job_of(order, run)] = point
    return deaths


def job_of(order: Standing, run: datetime) -> UUID:
    """Return the id of a run's job."""
    return uuid5(order.id, run.isoformat())


def _some_time(random: Random, first: float, last: float) -> datetime:
    """Return a random time between two fractions of the month."""
    return START + random.uniform(first, last) * (END - START)

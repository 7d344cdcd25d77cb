"""What is to be done about a schedule that is due. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache

from stream_app.schedules.calendar import Calendar
from stream_app.schedules.windows import Window, Windowing, window_of

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

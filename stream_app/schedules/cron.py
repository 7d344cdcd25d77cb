"""Checks cron expressions, and computes the times at which they are due. Pure: no clock, no I/O.

When clocks change: a run at an hour that does not exist takes place at the first minute after it. A run at an
hour that exists twice takes place the first time. Expressions that run in every hour (``*``, ``*/1``,
``0-23``) follow elapsed time instead, so that "every ten minutes" stays every ten minutes.

Days follow Debian's cron: if the day of the month or the day of the week begins with ``*``, both must match,
else at least one of them.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from stream_app.exports.filters.local_time import SECOND, instant, wall_of

CRON_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")

EVERY_HOUR = set(range(24))

_SOME_DAY = datetime(2026, 1, 1)
"""The day on which expressions are checked. The year does not matter, because they have no field for it."""


class InvalidCron(ValueError):
    """A text that is not a cron expression. The error's text is the reason."""


def parse_cron(expression: str) -> str:
    """Return the expression with single spaces.

    Raises:
        InvalidCron: it is not a cron expression.
    """
    fields = expression.split()
    if len(fields) != len(CRON_FIELDS) or len(expression) > 200:
        raise InvalidCron("it must have five fields")
    for place, (name, field) in enumerate(zip(CRON_FIELDS, fields, strict=True)):
        alone = ["*"] * len(fields)
        alone[place] = field
        if not _is_valid(" ".join(alone)):
            raise InvalidCron(f"its {name} {field!r:.50} is not valid")
    if not _is_valid(expression):
        raise InvalidCron("there is no such day")
    return " ".join(fields)


def _is_valid(expression: str) -> bool:
    try:
        CronSim(expression, _SOME_DAY)
    except CronSimError:
        return False
    return True


def is_ever_due(expression: str) -> bool:
    """Return whether a valid expression is due at any time."""
    return next(CronSim(expression, _SOME_DAY), None) is not None


def cron_runs_after(expression: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    """Yield the runs from about ``moment`` on, in UTC. Where clocks change, some are earlier, or equal."""
    walls = CronSim(expression, wall_of(moment, zone))
    if walls.hours == EVERY_HOUR:
        for run in CronSim(_in_every_hour(expression), moment.astimezone(zone)):
            yield run.astimezone(UTC)
    else:
        for wall in walls:
            yield instant(wall, zone)


def cron_runs_before(expression: str, zone: ZoneInfo, until: datetime) -> Iterator[datetime]:
    """Yield the runs before ``until`` in UTC, the latest first.

    Where clocks change, some are missing, and some are later than ``until``.
    """
    local = until.astimezone(zone).replace(microsecond=0) + SECOND
    shown = wall_of(until, zone).replace(microsecond=0) + SECOND
    walls = CronSim(expression, shown + _repeated(until.astimezone(zone)), reverse=True)
    if walls.hours == EVERY_HOUR:
        for run in CronSim(_in_every_hour(expression), local, reverse=True):
            yield run.astimezone(UTC)
    else:
        for wall in walls:
            yield instant(wall, zone)


def _in_every_hour(expression: str) -> str:
    """Return the expression with ``*`` as its hour: only then does the library follow elapsed time."""
    minute, _, *days = expression.split()
    return " ".join((minute, "*", *days))


def _repeated(local: datetime) -> timedelta:
    """Return by how much clocks were set back if ``local`` exists twice and is the second one, else zero."""
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return first - second if local.fold and first and second else timedelta()

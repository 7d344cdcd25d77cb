"""Conversion between local (wall-clock) times of a zone and instants in UTC. Pure."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the instant in UTC at which clocks in ``zone`` show ``wall``, a time without a zone.

    If the local time exists twice, it is the first instant. If it is skipped, it is the first minute after
    the gap.
    """
    found = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_of(found, zone) == wall:
        return found
    before, after = wall.replace(tzinfo=zone, fold=1).astimezone(UTC), found
    while after - before > SECOND:
        middle = before + (after - before) // SECOND // 2 * SECOND
        if wall_of(middle, zone) < wall:
            before = middle
        else:
            after = middle
    return after + timedelta(seconds=-wall_of(after, zone).second % 60)


def wall_of(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the local time in ``zone`` at ``moment``."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """Return the instant at which ``day`` begins in ``zone``."""
    return instant(datetime.combine(day, time()), zone)


def exists(day: date, zone: ZoneInfo) -> bool:
    """Return whether ``day`` exists in ``zone``: zones at the date line have skipped days."""
    return wall_of(start_of(day, zone), zone).date() == day

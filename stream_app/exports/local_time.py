"""From a time on the wall to the instant it stands for, in any zone. Pure."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)


def instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which clocks in ``zone`` show ``wall`` (which has no zone of its own).

    A time that exists twice is its first occurrence; one that is skipped is the first minute after the gap.
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
    """What clocks in ``zone`` show at ``moment``."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def start_of(day: date, zone: ZoneInfo) -> datetime:
    """The instant at which ``day`` begins."""
    return instant(datetime.combine(day, time()), zone)


def exists(day: date, zone: ZoneInfo) -> bool:
    """Whether ``zone`` has that day: those on the date line have skipped some."""
    return wall_of(start_of(day, zone), zone).date() == day

"""Computes when something is due in local time by stepping through the time. Does no I/O.

It shares no code with the service's calendar: it looks at every quarter of an hour.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import accumulate
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
"""All offsets of all zones have long been whole quarters of an hour: nothing happens between them."""

Shows = Callable[[datetime], bool]
"""Whether this is a time on the wall that is waited for."""


class WallClock:
    """The local times of one zone from ``first`` to ``last``, which are in UTC."""

    def __init__(self, zone: str, first: datetime, last: datetime) -> None:
        self._moments = list(_quarters(first, last))
        self._shown = [moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for moment in self._moments]
        # A clock that is set back shows nothing new until it has caught up.
        self._highest = list(accumulate(self._shown, max))
        self._walls = list(_quarters(self._shown[0] + DAY, self._highest[-1] - DAY))

    def first(self, wall: datetime) -> datetime:
        """The first moment at which the clock has shown that time, or a later one, having skipped it."""
        return self._moments[bisect_left(self._highest, wall)]

    def due(self, shows: Shows) -> dict[datetime, datetime]:
        """The moments at which something is due once for each time on the wall, and which time that was."""
        return {self.first(wall): wall for wall in self._walls if shows(wall)}

    def due_by_passing_time(self, shows: Shows) -> dict[datetime, datetime]:
        """As :meth:`due`, where what is shown twice counts twice, and what is skipped not at all."""
        return {moment: wall for moment, wall in zip(self._moments, self._shown, strict=True) if shows(wall)}


def _quarters(first: datetime, last: datetime) -> Iterator[datetime]:
    return (first + number * QUARTER for number in range((last - first) // QUARTER))

"""Computes when a local time occurs, by steps of a quarter of an hour. Does no I/O.

It shares no code with the service's calendar.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import accumulate
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
"""The step. The offsets of all zones are multiples of it."""

Shows = Callable[[datetime], bool]
"""Returns whether a local time is one of those to find."""


class WallClock:
    """The local times of one zone from ``first`` to ``last``, which are in UTC."""

    def __init__(self, zone: str, first: datetime, last: datetime) -> None:
        self._moments = list(_quarters(first, last))
        self._shown = [moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for moment in self._moments]
        # A clock that was set back shows no new time until it has reached the time before the change.
        self._highest = list(accumulate(self._shown, max))
        self._walls = list(_quarters(self._shown[0] + DAY, self._highest[-1] - DAY))

    def first(self, wall: datetime) -> datetime:
        """Return the first moment with this local time, or with a later one if this time was skipped."""
        return self._moments[bisect_left(self._highest, wall)]

    def due(self, shows: Shows) -> dict[datetime, datetime]:
        """Return the moment of each matching local time, once for each, with the local time."""
        return {self.first(wall): wall for wall in self._walls if shows(wall)}

    def due_by_passing_time(self, shows: Shows) -> dict[datetime, datetime]:
        """As :meth:`due`, but a repeated local time counts twice, and a skipped one does not count."""
        return {moment: wall for moment, wall in zip(self._moments, self._shown, strict=True) if shows(wall)}


def _quarters(first: datetime, last: datetime) -> Iterator[datetime]:
    return (first + number * QUARTER for number in range((last - first) // QUARTER))

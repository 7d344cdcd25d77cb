"""The time zones of files: their names, and the changes of their offsets. Pure.

PostgreSQL converts each instant by its own time-zone data. That takes as long as to write the instant,
because it looks up the name for each value. For the years :data:`FAST_YEARS` the statement therefore has the
changes of the offset, which this module finds in Python's data. Before they are used,
:func:`check_sql` compares them with the server's data: they must not differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from streaming_exporter.errors import Rejected

FAST_YEARS = (1970, 2038)
"""The first year, and the year after the last one, whose changes a statement can have."""

_STEP = timedelta(days=3)
"""Days between two instants whose offsets are compared. No offset since 1970 was valid for less than seven."""
_CHECKED_DAYS = 10
"""Days between two instants that are compared: much less than the shortest time that an offset lasts."""

_ABBREVIATIONS = {
    "CET": "Europe/Brussels",
    "EET": "Europe/Athens",
    "EST": "America/Panama",
    "HST": "Pacific/Honolulu",
    "MET": "Europe/Brussels",
    "MST": "America/Phoenix",
    "WET": "Europe/Lisbon",
}
"""Zones whose names PostgreSQL's functions take for abbreviations of a fixed offset, without summer time.

Their zones are those that IANA's file ``backward`` links them to.
"""

UTC_NAMES = frozenset(
    {
        "Etc/UCT",
        "Etc/UTC",
        "Etc/Universal",
        "Etc/Zulu",
        "UCT",
        "UTC",
        "Universal",
        "Zulu",
    }
)
"""Names of UTC."""


@dataclass(frozen=True, slots=True)
class TimeZone:
    """A time zone of a file.

    Attributes:
        name: its name, as the requester wrote it.
        sql_name: the name of the same zone that PostgreSQL's functions understand.
        changes: the instants within :data:`FAST_YEARS` from which on an offset is valid, in their order.
            The first one is the begin of these years. Empty if the server must look up each value.
        offsets: the offset from each change on, in seconds east of UTC.
    """

    name: str
    sql_name: str
    changes: tuple[datetime, ...] = ()
    offsets: tuple[int, ...] = ()

    def without_changes(self) -> "TimeZone":
        """Return the zone whose values the server looks up, because its data differ from Python's."""
        return TimeZone(self.name, self.sql_name)


def find_zone(name: str, field: str = "options.timezone") -> TimeZone:
    """Return the zone with an IANA name.

    Raises:
        Rejected: there is no such zone. ``field`` is the field that has the name.
    """
    # ZoneInfo takes the name as a path, and "localtime" is the zone of this machine.
    if name not in known_zones():
        raise Rejected(
            f"there is no time zone {name!r:.100}{_nearest(name)}; names are such as Europe/Berlin, "
            "America/New_York or UTC",
            code="unknown_timezone",
            field=field,
        )
    return _zone(name)


@lru_cache(maxsize=1)
def known_zones() -> frozenset[str]:
    """Return the names of all zones."""
    return frozenset(available_timezones() - {"localtime"})


def _nearest(name: str) -> str:
    from difflib import get_close_matches

    by_lower_case = {known.lower(): known for known in known_zones()}
    found = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.75)
    return f"; did you mean {by_lower_case[found[0]]}?" if found else ""


@lru_cache(maxsize=64)
def _zone(name: str) -> TimeZone:
    sql_name = _ABBREVIATIONS.get(name, name)
    zone = ZoneInfo(sql_name)
    first, end = (datetime(year, 1, 1, tzinfo=UTC) for year in FAST_YEARS)
    changes, offsets = [first], [_offset(first, zone)]
    moment = first
    while moment < end:
        following = moment + _STEP
        while _offset(following, zone) != offsets[-1]:
            changes.append(_change(moment, following, zone))
            offsets.append(_offset(changes[-1], zone))
            moment = changes[-1]
        moment = following
    return TimeZone(name, sql_name, tuple(changes), tuple(offsets))


def _offset(moment: datetime, zone: ZoneInfo) -> int:
    offset = moment.astimezone(zone).utcoffset() or timedelta()
    return round(offset.total_seconds())


def _change(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """Return the first second of the first offset after the one that is valid at ``before``."""
    old = _offset(before, zone)
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // timedelta(seconds=2) * timedelta(seconds=1)
        if _offset(middle, zone) == old:
            before = middle
        else:
            after = middle
    return after


def check_sql(zone: TimeZone) -> str:
    """Return SQL whose only value says whether the server's data agree with the changes of ``zone``.

    The statement fails with ``invalid_parameter_value`` if the server does not know the zone. It compares the
    offsets at each change, just before it, and every ten days.
    """
    first, end = (f"timestamptz '{year}-01-01 00:00:00+00'" for year in FAST_YEARS)
    changes, offsets = array_sql(zone.changes), f"'{{{','.join(map(str, zone.offsets))}}}'::int[]"
    return f"""
SELECT bool_and(
    timezone('{zone.sql_name}', moment) = timezone(interval '0', moment)
    + make_interval(secs => ({offsets})[width_bucket(moment, {changes})])
)
FROM (
    SELECT generate_series({first}, {end} - interval '1 microsecond', interval '{_CHECKED_DAYS} days')
    UNION ALL SELECT unnest({changes})
    UNION ALL SELECT unnest(({changes})[2:]) - interval '1 microsecond'
    UNION ALL SELECT {end} - interval '1 microsecond'
) AS moments (moment)
"""


def array_sql(moments: Sequence[datetime]) -> str:
    """Return an array of instants as SQL."""
    return f"""'{{{",".join(f"{moment:%Y-%m-%d %H:%M:%S}+00" for moment in moments)}}}'::timestamptz[]"""

"""The time zones of files: their names, and the changes of their offsets. Pure.

PostgreSQL converts each instant by its own time-zone data. That takes as long as to write the instant,
because it looks up the name for each value. For the years :data:`FAST_YEARS` the statement therefore has the
changes of the offset, which this module finds in Python's data. Before they are used,
:func:`check_sql` compares them with the server's data: they must not differ.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from streaming_exporter.errors import Rejected

FAST_YEARS = (1970, 2038)
"""The first year, and the year after the last one, whose changes a statement can have."""

BEGIN, END = (datetime(year, 1, 1, tzinfo=UTC) for year in FAST_YEARS)

_STEP = timedelta(days=3)
"""Time between two compared instants. Since 1970 each offset was valid for a week at least."""
_CHECKED_DAYS = 5
"""Days between two instants at which the server's data are checked: less than any of these times."""

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


@dataclass(frozen=True, slots=True)
class TimeZone:
    """A time zone of a file.

    Attributes:
        name: its name, as the requester wrote it.
        sql_name: the name of the same zone that PostgreSQL's functions understand.
        changes: the instants from which on an offset is valid, in their order. The first one is the start of
            :data:`FAST_YEARS`. Empty if the server must look up each value.
        offsets: the offset from each change on, in seconds east of UTC.
        end: the end of the last offset's time. Later values are looked up.
        known_offsets: all offsets by Python's data, in their order.
    """

    name: str
    sql_name: str
    changes: tuple[datetime, ...] = ()
    offsets: tuple[int, ...] = ()
    end: datetime = END
    known_offsets: tuple[int, ...] = ()

    def until(self, moment: datetime) -> "TimeZone":
        """Return the zone with its changes before ``moment``, the first instant at which the data differ."""
        end = moment - timedelta(days=_CHECKED_DAYS)
        kept = bisect_left(self.changes, end)
        return replace(self, changes=self.changes[:kept], offsets=self.offsets[:kept], end=end)


def find_zone(name: str, field: str = "options.timezone") -> TimeZone:
    """Return the zone with an IANA name. The first time that takes some milliseconds.

    Raises:
        Rejected: there is no such zone. ``field`` is the field that has the name.
    """
    check_zone_name(name, field)
    return _zone(name)


def check_zone_name(name: str, field: str = "options.timezone") -> None:
    """Check that there is a zone with this IANA name.

    Raises:
        Rejected: there is none. ``field`` is the field that has the name.
    """
    # ZoneInfo takes the name as a path, and "localtime" is the zone of this machine.
    if name not in known_zones():
        raise Rejected(
            f"there is no time zone {name!r:.100}{_nearest(name)}; names are such as Europe/Berlin, "
            "America/New_York or UTC",
            code="unknown_timezone",
            field=field,
        )


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
    changes, offsets = [BEGIN], [_offset(BEGIN, zone)]
    moment = BEGIN
    while moment < END:
        following = moment + _STEP
        while _offset(following, zone) != offsets[-1]:
            changes.append(_change(moment, following, zone))
            offsets.append(_offset(changes[-1], zone))
            moment = changes[-1]
        moment = following
    kept = bisect_left(changes, END)
    return TimeZone(name, sql_name, tuple(changes[:kept]), tuple(offsets[:kept]), END, tuple(offsets[:kept]))


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
    """Return SQL whose value is the first instant at which the server's data differ from ``zone``, or NULL.

    The statement fails with ``invalid_parameter_value`` if the server does not know the zone. It compares the
    offsets at each change, just before it, and every five days.
    """
    first, end = (f"timestamptz '{moment:%Y-%m-%d %H:%M:%S}+00'" for moment in (BEGIN, END))
    changes, offsets = array_sql(zone.changes), f"'{{{','.join(map(str, zone.offsets))}}}'::int[]"
    return f"""
SELECT min(moment)
FROM (
    SELECT generate_series({first}, {end} - interval '1 microsecond', interval '{_CHECKED_DAYS} days')
    UNION ALL SELECT unnest({changes})
    UNION ALL SELECT unnest(({changes})[2:]) - interval '1 microsecond'
    UNION ALL SELECT {end} - interval '1 microsecond'
) AS moments (moment)
WHERE timezone('{zone.sql_name}', moment) IS DISTINCT FROM timezone(interval '0', moment)
    + make_interval(secs => ({offsets})[width_bucket(moment, {changes})])
"""


def array_sql(moments: Sequence[datetime]) -> str:
    """Return an array of instants as SQL."""
    return f"""'{{{",".join(f"{moment:%Y-%m-%d %H:%M:%S}+00" for moment in moments)}}}'::timestamptz[]"""

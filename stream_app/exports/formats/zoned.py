"""The SQL that writes instants as local times of a zone. Pure.

The session's time zone stays UTC: views, masks, policies and the constants of filters must not depend on the
zone of the file. So the zone is an argument of PostgreSQL's function ``timezone``. To look it up by name
takes as long as to write a value. For most values the offset is therefore found in the changes of
:class:`~stream_app.time_zones.TimeZone`, which the server has checked, by ``width_bucket``.

The expressions are plain SQL, and the SQL of a value is evaluated more than once.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from stream_app.time_zones import TimeZone, array_sql

_CONVERTIBLE = ("4712-01-01 00:00:00+00 BC", "294276-01-01 00:00:00+00")
"""Instants from the first to the second (exclusive) have a local time in every zone. Others stay in UTC."""

_COMMON_ERA = "0001-01-02 00:00:00+00"
"""From this instant on the text of a local time begins with its year and has no era."""

_USUAL = 4
"""The number of offsets that are tried before the offset is computed."""


def local_sql(value: str, zone: TimeZone) -> str:
    """Return SQL for the local time, a ``timestamp`` without a zone, of an instant."""
    cases = [(_between(value, _CONVERTIBLE), _by_name(value, zone))]
    if zone.changes:
        cases.insert(0, (is_covered_sql(value, zone), covered_local_sql(value, zone)))
    return _case(cases, f"timezone(interval '0', {value})")


def covered_local_sql(value: str, zone: TimeZone) -> str:
    """Return SQL for the local time of an instant that :func:`is_covered_sql` is true for."""
    if len(zone.offsets) == 1:
        return _by_offset(value, zone.offsets[0])
    intervals = "{" + ",".join(f"{offset} s" for offset in zone.offsets) + "}"
    return f"timezone(('{intervals}'::interval[])[{_position(value, zone)}], {value})"


def local_text_sql(value: str, zone: TimeZone) -> str:
    """Return SQL for the local time as text, such as ``2026-07-01 12:00:00``, without an offset.

    Instants that have no local time are written in UTC, with the offset.
    """
    return (
        f"CASE WHEN {_between(value, _CONVERTIBLE)} OR NOT isfinite({value})"
        f" THEN ({local_sql(value, zone)})::text ELSE {_in_utc(value)} END"
    )


def offset_text_sql(value: str, zone: TimeZone) -> str:
    """Return SQL for the offset of the local time, such as ``+02:00``, of an instant that has one."""
    if not zone.changes:
        return _computed_offset(value, zone)
    text = covered_text_sql(value, zone, lambda _, offset: f"'{offset}'")
    return _case([(is_covered_sql(value, zone), text)], _computed_offset(value, zone))


def zoned_text_sql(value: str, zone: TimeZone, *, with_space: bool = False) -> str:
    """Return SQL for the local time with its offset, such as ``2026-07-01T12:00:00+02:00``.

    It is the text that PostgreSQL's JSON functions write in a session with this zone. ``with_space`` leaves
    the space of PostgreSQL's own text between date and time, for a caller that replaces it by a ``T``.
    """

    def iso(text: str) -> str:
        return text if with_space else f"replace({text}, ' ', 'T')"

    def by_offset(offset: int) -> str:
        return f"{iso(f'{_by_offset(value, offset)}::text')} || '{offset_text(offset)}'"

    local = _by_name(value, zone)
    by_name = f"{iso(f'{local}::text')} || {_computed_offset(value, zone)}"
    usual = [(_by_offset(value, offset), by_offset(offset)) for offset in _usual(zone)]
    before_christ = f"{iso(f'left({local}::text, -3)')} || {_computed_offset(value, zone)} || ' BC'"
    cases = [
        (
            _between(value, (_COMMON_ERA, _CONVERTIBLE[1])),
            _switch(local, usual, by_name) if usual else by_name,
        ),
        (
            _between(value, _CONVERTIBLE),
            f"CASE WHEN {local} < '0001-01-01' THEN {before_christ} ELSE {by_name} END",
        ),
    ]
    if zone.changes:
        text = covered_text_sql(value, zone, lambda local, offset: f"{iso(f'{local}::text')} || '{offset}'")
        cases.insert(0, (is_covered_sql(value, zone), text))
    return _case(cases, _in_utc(value))


def covered_text_sql(value: str, zone: TimeZone, write: Callable[[str, str], str]) -> str:
    """Return SQL for the text of an instant that :func:`is_covered_sql` is true for.

    ``write`` returns SQL for it from the SQL of the local time and from the offset, such as ``+02:00``.
    """
    texts = [
        (str(offset), write(_by_offset(value, offset), offset_text(offset)))
        for offset in dict.fromkeys(reversed(zone.offsets))  # the latest ones first
    ]
    return texts[0][1] if len(texts) == 1 else _switch(_offset(value, zone), texts)


def offset_text(seconds: int) -> str:
    """Return an offset as text, such as ``+05:30``, with seconds only if it has some."""
    hours, rest = divmod(abs(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{'-' if seconds < 0 else '+'}{hours:02}:{minutes:02}" + (f":{rest:02}" if rest else "")


def _offset(value: str, zone: TimeZone) -> str:
    return f"('{{{','.join(map(str, zone.offsets))}}}'::int[])[{_position(value, zone)}]"


def _position(value: str, zone: TimeZone) -> str:
    # Before PostgreSQL 14 it does not accept a domain.
    return f"width_bucket(({value})::timestamptz, {array_sql(zone.changes)})"


def is_covered_sql(value: str, zone: TimeZone) -> str:
    """Return SQL for whether the changes of the zone give the offset of an instant. There must be some."""
    return _between(value, (_moment(zone.changes[0]), _moment(zone.end)))


def _computed_offset(value: str, zone: TimeZone) -> str:
    """Return SQL for the offset as text, as PostgreSQL writes it."""
    offset = f"({_by_name(value, zone)} - timezone(interval '0', {value}))"
    size = f"greatest({offset}, -{offset})"
    return (
        f"CASE WHEN {offset} < interval '0' THEN '-' ELSE '+' END || to_char({size}, 'HH24:MI')"
        f" || CASE WHEN date_part('second', {offset}) <> 0 THEN to_char({size}, ':SS') ELSE '' END"
    )


def _by_name(value: str, zone: TimeZone) -> str:
    return f"timezone('{zone.sql_name}', {value})"


def _by_offset(value: str, seconds: int) -> str:
    return f"timezone(interval '{seconds} s', {value})"


def _in_utc(value: str) -> str:
    return f"btrim(to_json({value})::text, '\"')"


def _between(value: str, limits: tuple[str, str]) -> str:
    return f"{value} >= '{limits[0]}'::timestamptz AND {value} < '{limits[1]}'::timestamptz"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}+00"


def _usual(zone: TimeZone) -> list[int]:
    """Return the offsets that most values have: the latest ones."""
    return list(dict.fromkeys(reversed(zone.known_offsets)))[:_USUAL]


def _case(cases: Sequence[tuple[str, str]], otherwise: str) -> str:
    if not cases:
        return otherwise
    return f"CASE {' '.join(f'WHEN {test} THEN {result}' for test, result in cases)} ELSE {otherwise} END"


def _switch(value: str, cases: Sequence[tuple[str, str]], otherwise: str = "NULL") -> str:
    """Return SQL that evaluates ``value`` once and compares it with each case."""
    return (
        f"CASE {value} {' '.join(f'WHEN {one} THEN {result}' for one, result in cases)} ELSE {otherwise} END"
    )

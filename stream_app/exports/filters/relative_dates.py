"""Filter values relative to the current time: ``now-7d``, ``today``, ``start_of_month-1mo``. Pure.

They are for columns of dates and times only. For other columns the same words are plain text. ``today``,
``yesterday`` and ``tomorrow`` are whole days, as dates are; the other words are moments. A day of a column
without a zone has the date that the zone of the request has now, and begins at 00:00 of the column's times.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from stream_app.datasets.models import Parameter
from stream_app.datasets.parameters import TYPES
from stream_app.datasets.typed_values import RELATIVE, TEMPORAL
from stream_app.exports.columns import Column, Kind
from stream_app.exports.filters.local_time import instant, wall_of
from stream_app.exports.filters.whole_days import BEGINNINGS, day_of, day_zone, without_zone
from streaming_exporter.errors import Rejected
from streaming_exporter.events import ExportRequest

UTC = ZoneInfo("UTC")
_DAY = re.compile(r"(?:today|yesterday|tomorrow)(?:[+-]\d+(?:mo|d|w|y))*", re.ASCII)
"""The relative values that are whole days."""
_ELAPSED = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1)}
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"mo": 1, "y": 12}


def as_filter_value(moment: datetime, kind: Kind, zone: ZoneInfo) -> str:
    """Return ``moment`` as a filter value for a column of ``kind``."""
    if kind is Kind.DATE:
        return wall_of(moment, zone).date().isoformat()
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def is_relative(filters: object) -> bool:
    """Return whether any text in ``filters`` has the form of a relative value."""
    if isinstance(filters, str):
        return RELATIVE.fullmatch(filters) is not None
    if isinstance(filters, Mapping):
        return any(map(is_relative, filters.values()))
    return isinstance(filters, list) and any(map(is_relative, filters))


def resolve_request(
    request: ExportRequest,
    columns: Mapping[str, Column],
    now: datetime,
    default_zone: str | None = None,
    *,
    parameters: Mapping[str, Parameter] | None = None,
) -> ExportRequest:
    """Return ``request`` with its relative values replaced by their values at ``now``.

    Days, weeks, months and years are those of ``options.timezone``, or else of ``default_zone``.

    Args:
        request: the request.
        columns: the columns that its filters can name.
        now: the time that the values are relative to.
        default_zone: the time zone of the dataset; ``None`` for UTC.
        parameters: the parameters of the dataset's query. Their defaults can be relative, too.

    Raises:
        Rejected: there is no such time zone.
    """
    changes: dict[str, Any] = {}
    if is_relative(request.filters):
        kinds = {name: column.kind for name, column in columns.items()}
        zone = day_zone(request.options.timezone, default_zone)
        changes["filters"] = resolve_filters(request.filters, kinds, now, zone, day_default=zone)
    if parameters:
        zone = day_zone(request.options.timezone, default_zone)
        changes["parameters"] = resolve_parameters(request.parameters, parameters, now, zone)
    return request.model_copy(update=changes) if changes else request


def resolve_parameters(
    given: Mapping[str, Any], parameters: Mapping[str, Parameter], now: datetime, zone: ZoneInfo
) -> dict[str, Any]:
    """Return the parameters ``given`` with relative values replaced by their values at ``now``.

    Days, weeks, months and years are those of ``zone``, and a day is its beginning: for a type without a zone
    it is 00:00 of the date that ``zone`` has. A relative default is added: from now on the request has that
    value. Local times that name their zone are converted to UTC.

    Raises:
        Rejected: a value names a time zone that does not exist, or that has another offset than the value.
    """
    kinds = {name: TYPES[parameter.type].kind for name, parameter in parameters.items()}
    defaults = {name: item.default for name, item in parameters.items() if is_relative(item.default)}
    values = {name: value for name, value in given.items() if value is not None or name not in defaults}
    resolved = resolve_filters({**defaults, **values}, kinds, now, zone, whole_days=False)
    free = {name for name, item in parameters.items() if item.choices is None}  # a choice has its own text
    return {
        name: _beginning(kinds[name], value, zone, f"parameters.{name}") if name in free else value
        for name, value in resolved.items()
    }


def _beginning(kind: Kind, value: Any, zone: ZoneInfo, field: str) -> Any:
    """Return the beginning of a day, or a local time that names its zone, as a time in UTC."""
    day = None if zone.key == "UTC" and "[" not in str(value) else day_of(kind, value, zone, field)
    try:
        return without_zone(kind, value, field) if day is None else day.start
    except Rejected as error:
        if error.code == "bad_filter_value":
            error.code = "bad_parameter_value"
        raise


def resolve_filters(
    filters: Mapping[str, Any],
    kinds: Mapping[str, Kind],
    now: datetime,
    zone: ZoneInfo,
    *,
    day_default: ZoneInfo = UTC,
    whole_days: bool = True,
) -> dict[str, Any]:
    """Return ``filters`` with their relative values replaced by their values at ``now``.

    ``kinds`` has the kinds of the columns. Days, weeks, months and years are those of ``zone``. A day names
    its zone if it would be a day of ``day_default`` otherwise. Without ``whole_days`` a day is its beginning,
    as in the values of parameters.
    """
    operator = "eq" if whole_days else "gte"
    suffix = "" if zone.key == day_default.key else f"[{zone.key}]"
    return {
        name: _resolved(value, kinds[name], now, zone, suffix, operator)
        if kinds.get(name) in TEMPORAL
        else value
        for name, value in filters.items()
    }


def _resolved(value: Any, kind: Kind, now: datetime, zone: ZoneInfo, suffix: str, operator: str) -> Any:
    if isinstance(value, dict):
        return {name: _resolved(item, kind, now, zone, suffix, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, kind, now, zone, suffix, operator) for item in value]
    found = RELATIVE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return value
    try:
        moment = _moment(found[1], found[2], now, zone)
        if _DAY.fullmatch(value):
            day = wall_of(moment, zone).date().isoformat()
            if kind is Kind.TIMESTAMP:
                return day  # only a date is a day of the column's own times: an instant or a zone moves it
            if kind is Kind.TIMESTAMPTZ and operator not in BEGINNINGS:
                return f"{day}{suffix}"
        return as_filter_value(moment, kind, zone)
    except (OverflowError, ValueError):
        return value  # beyond the calendar: the check of the filter reports it


def _moment(anchor: str, offsets: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment of a relative value.

    Days, weeks, months and years are added to the local time. It is made an instant only at the end, or
    before hours, minutes and seconds are added: where a change of clocks skips midnight, clocks show 01:00 at
    the instant of that midnight, and a day before it would begin an hour late.
    """
    moment = now.replace(microsecond=0)
    wall = None if anchor == "now" else _ANCHORS[anchor](wall_of(moment, zone))
    for sign, amount, unit in re.findall(r"([+-])(\d+)([a-z]+)", offsets):
        count = int(sign + amount)
        if unit in _ELAPSED:
            start = moment if wall is None else instant(wall, zone)
            moment, wall = start + count * _ELAPSED[unit], None
        else:
            wall = _days_or_months(wall_of(moment, zone) if wall is None else wall, count, unit)
    return moment if wall is None else instant(wall, zone)


def _midnight(wall: datetime) -> datetime:
    return datetime.combine(wall.date(), time())


def _days_or_months(wall: datetime, count: int, unit: str) -> datetime:
    """Add ``count`` units. If the month has no such day, the result is its last day."""
    if unit in _DAYS:
        return wall + timedelta(days=count * _DAYS[unit])
    month = wall.year * 12 + wall.month - 1 + count * _MONTHS[unit]
    first = wall.replace(year=month // 12, month=month % 12 + 1, day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return first.replace(day=min(wall.day, (following - timedelta(days=1)).day))


_ANCHORS: dict[str, Callable[[datetime], datetime]] = {
    "today": _midnight,
    "yesterday": lambda wall: _midnight(wall) - timedelta(days=1),
    "tomorrow": lambda wall: _midnight(wall) + timedelta(days=1),
    "start_of_day": _midnight,
    "start_of_week": lambda wall: _midnight(wall) - timedelta(days=wall.weekday()),
    "start_of_month": lambda wall: _midnight(wall).replace(day=1),
    "start_of_quarter": lambda wall: _midnight(wall).replace(month=(wall.month - 1) // 3 * 3 + 1, day=1),
    "start_of_year": lambda wall: _midnight(wall).replace(month=1, day=1),
}

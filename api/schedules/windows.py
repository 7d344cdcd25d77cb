"""The windows of schedules that are created or changed: where the next one begins, and what it limits.

Limits of a column of dates are days of the schedule's zone. So where the zone changes, the start of the next
window and the gaps move to the start of the same day in the new zone. Otherwise a day would be in two files,
or in none. Windows of days and times cannot be moved, so none must be left where their zone changes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy.ext.asyncio import AsyncConnection

from api.errors import Problem
from api.schedules.schemas import ScheduleOrder
from api.services import ApiServices
from stream_app.datasets.bundle_requests import filters_by_dataset
from stream_app.datasets.bundles import Bundle, members_of
from stream_app.datasets.caller import Caller
from stream_app.datasets.models import Dataset
from stream_app.datasets.rights import find_dataset
from stream_app.datasets.typed_values import TEMPORAL
from stream_app.exports.columns import Kind
from stream_app.exports.filters.local_time import start_of, wall_of
from stream_app.exports.queries.windows import check_window_columns
from stream_app.exports.tables.rights import read_visible
from stream_app.exports.tables.source_table import SourceTable
from stream_app.schedules.models import Schedule
from stream_app.schedules.run_planner import first_window_start
from stream_app.schedules.windows import Windowing
from streaming_exporter.errors import Rejected


def next_window_start(
    services: ApiServices,
    order: ScheduleOrder,
    current: Schedule | None,
    now: datetime,
    kinds: Mapping[str, str] | None,
) -> datetime | None:
    """Return the start of the next window; ``None`` for the start of its period.

    A pause does not skip the period of the run that is due first.

    Args:
        services: what the calls work with.
        order: the schedule.
        current: the schedule before the change.
        now: the present time.
        kinds: the kinds of the schedule's time columns.

    Raises:
        Rejected: ``window_from`` does not fit, or is needed.
    """
    if order.window is Windowing.NONE:
        if order.window_from is not None:
            raise Rejected(
                "the schedule has no window; set window, or leave window_from out", field="window_from"
            )
        return None
    if order.window_from is not None:
        return order.window_from
    start = current.window_start if current is not None else None
    if current is not None and (not (current.active and order.active) or is_due(current, now)):
        start = first_window_start(current)
    if current is None or start is None:
        return now if order.window is Windowing.SINCE_LAST_RUN else None
    zones = _zones(current, order.timezone)
    limited = _window_kinds(services.datasets.get(order.export_type), kinds)
    if zones is None or Kind.DATE not in limited:
        return start
    if limited != {Kind.DATE}:
        raise Rejected(
            "the windows of this bundle limit days and times, so another time zone would repeat or leave out "
            "rows; give window_from, where the next window begins",
            field="timezone",
        )
    return _same_day(start, *zones)


async def change_gaps(
    services: ApiServices,
    connection: AsyncConnection,
    current: Schedule,
    changed: Schedule,
    window_from: datetime | None,
) -> None:
    """Change the gaps of a schedule with its windows, so that no row is exported twice and no day is lost.

    Args:
        services: what the calls work with.
        connection: in the transaction that has locked and changed the schedule.
        current: the schedule before the change.
        changed: the schedule after it.
        window_from: the start of the next window, if the call sets it. That window then contains all later
            gaps.

    Raises:
        Problem: a run whose window is of days of the old zone has not ended, or a gap of days and times
            is left.
    """
    if Windowing.NONE in (current.window, changed.window):
        await services.schedules.delete_gaps(connection, current.id)
        return
    zones = _zones(current, changed.timezone)
    limited = _window_kinds(services.datasets.get(changed.export_type), changed.column_kinds)
    only_days = limited == {Kind.DATE}
    if zones is not None and Kind.DATE in limited:
        if await services.schedules.has_unfinished_windows(connection, current.id):
            raise Problem(
                409,
                "runs_unfinished",
                "A run of this schedule has not ended, and its window is of days of the old time zone. Wait "
                "for its end or cancel it, then change the time zone",
                field="timezone",
            )
        if only_days:
            old, new = zones
            await services.schedules.move_gaps(
                connection, current.id, lambda moment: _same_day(moment, old, new)
            )
    if window_from is not None:
        await services.schedules.end_gaps(connection, current.id, window_from)
    if zones is not None and Kind.DATE in limited and not only_days:
        await _refuse_gaps(services, connection, current.id)


async def _refuse_gaps(services: ApiServices, connection: AsyncConnection, schedule_id: UUID) -> None:
    first = await services.schedules.first_gap(connection, schedule_id)
    if first is not None:
        raise Problem(
            409,
            "gaps_left",
            "A run of this schedule failed, and its window of days and times of the old time zone is not "
            f"exported yet. It begins at {first.isoformat()}. Change the time zone after a later run has "
            "exported it, or give a window_from that is not after its start",
            field="timezone",
        )


def is_due(schedule: Schedule, now: datetime) -> bool:
    """Return whether a run is due whose tick has not come yet."""
    return schedule.next_run is not None and schedule.next_run <= now


def _zones(current: Schedule, timezone: str) -> tuple[ZoneInfo, ZoneInfo] | None:
    """Return the zones before and after a change; ``None`` if it is the same, or the old one is unknown."""
    if current.timezone == timezone:
        return None
    try:
        return ZoneInfo(current.timezone), ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _same_day(moment: datetime, old: ZoneInfo, new: ZoneInfo) -> datetime:
    """Return the start in the zone ``new`` of the day that ``moment`` has in the zone ``old``."""
    return start_of(wall_of(moment, old).date(), new)


def _window_kinds(dataset: Dataset | None, kinds: Mapping[str, str] | None) -> set[str]:
    """Return the kinds of the columns that windows limit."""
    if dataset is None:
        return set()
    prefix = isinstance(dataset, Bundle)
    names = (f"{member.name}.{member.time}" if prefix else member.time for member in members_of(dataset))
    return {kind for name in names if name is not None and (kind := (kinds or {}).get(name)) is not None}


async def column_kinds(services: ApiServices, order: ScheduleOrder, caller: Caller) -> dict[str, str] | None:
    """Return the kinds of the time columns in the window and the filters.

    Those of a bundle are named with their dataset: ``ledger.created_at``.
    """
    dataset = find_dataset(services.datasets, order.export_type, caller)
    has_window = order.window is not Windowing.NONE
    if not isinstance(dataset, Bundle):
        table = await read_visible(services.catalog, dataset, caller)
        if has_window:
            check_window_columns(table, has_deletions=True)
        return _kinds_of(table, order, order.filters or {}, needs_time=True) or None
    kinds: dict[str, str] = {}
    is_limited = False
    given = filters_by_dataset(dataset, order.filters or {})
    for member in dataset.members:
        table = await read_visible(services.catalog, member, caller)
        if has_window:
            check_window_columns(table, has_deletions=False)
        own = given.get(member.name) or {}
        limited = {**dataset.filters.get(member.name, {}), **own}
        found = _kinds_of(table, order, limited, needs_time=False, place=f"filters.{member.name}")
        is_limited = is_limited or table.dataset.time in found
        kinds |= {f"{member.name}.{name}": kind for name, kind in found.items()}
    if has_window and not is_limited:
        raise _no_window(
            f"no dataset of bundle {dataset.name!r} has a time column, so it cannot have a window"
        )
    return kinds or None


def _kinds_of(
    table: SourceTable,
    order: ScheduleOrder,
    filters: Mapping[str, Any],
    *,
    needs_time: bool,
    place: str = "filters",
) -> dict[str, str]:
    """Return the kinds of the time columns of one dataset.

    Args:
        table: its table as the owner of the schedule sees it.
        order: the schedule.
        filters: the filters of the dataset.
        needs_time: whether a window needs a time column. In a bundle, a dataset can be whole.
        place: the place of the filters, for errors.

    Raises:
        Rejected: there is no time column, or a filter has it besides the window.
    """
    dataset, columns = table.dataset, table.filterable
    names = set(filters)
    if order.window is not Windowing.NONE:
        has_time = dataset.time is not None
        if needs_time and not has_time:
            raise _no_window(f"dataset {dataset.name!r} has no time column, so it cannot have a window")
        if has_time and dataset.time in names:
            raise Rejected(
                "the window limits this column already; remove the filter or the window",
                code="filter_and_window",
                field=f"{place}.{dataset.time}",
            )
        if has_time and dataset.time is not None:
            names.add(dataset.time)
    names_of_columns = sorted(names & columns.keys())
    return {name: columns[name].kind for name in names_of_columns if columns[name].kind in TEMPORAL}


def _no_window(text: str) -> Rejected:
    return Rejected(text, code="no_time_column", field="window", allowed=[Windowing.NONE])

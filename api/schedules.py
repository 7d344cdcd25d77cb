"""What owners do with their schedules: everything is checked as if the export were asked for now."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import structlog
from pydantic import ValidationError
from sqlalchemy import Row

from api.auth import User
from api.orders import check_against_table, event_of
from api.problems import Problem
from api.schedule_models import ScheduleOrder, SchedulePatch
from api.services import Services
from stream_app.errors import Rejected
from stream_app.events import ExportRequest
from stream_app.schedules.calendar import PERIODS, Calendar
from stream_app.schedules.relative import TEMPORAL
from stream_app.schedules.rights import Rights
from stream_app.schedules.windows import Windowing

log = structlog.get_logger(__name__)

CALENDAR = ("schedule", "time_of_day", "day", "timezone")
ASKED = ("export_type", "format", "filters", "columns", "options", "scope", "webhook")


def not_found() -> Problem:
    """No such schedule, or not this user's: nobody can tell which."""
    return Problem(404, "not_found", "There is no such schedule, or it is not yours")


async def create(services: Services, user: User, order: ScheduleOrder) -> Row[Any]:
    """Record a new schedule.

    Raises:
        Rejected: it makes no sense; the text names the field.
        Problem: it is not allowed.
    """
    limit = services.settings.user_schedule_limit
    values = await _checked(services, user, user.id, order, None)
    row = await services.schedules.create({"id": uuid4(), "user_id": user.id, **values}, most=limit)
    if row is None:
        raise Problem(
            409, "too_many_schedules", f"You may have {limit} schedules; delete one, or change one of them"
        )
    return row


async def end_grant(services: Services, user: User, schedule_id: UUID) -> None:
    """End the leave of a schedule to take every row, where its owner's token lacks the role for it."""
    if not user.may_export_all and await services.schedules.end_grant(schedule_id, user_id=user.id):
        log.info("schedule.grant_ended", schedule_id=str(schedule_id), user_id=user.id)


async def change(services: Services, user: User, schedule_id: UUID, patch: SchedulePatch) -> Row[Any]:
    """Change a schedule; it is checked as a whole, unless it is only paused: that is always possible.

    Raises:
        Rejected: it makes no sense as it would be.
        Problem: there is none, or the change is not allowed.
    """
    await end_grant(services, user, schedule_id)
    if patch.model_fields_set == {"active"} and patch.active is False:
        return await _pause(services, user, schedule_id)
    while True:
        known = await services.schedules.get(schedule_id, user_id=user.sees)
        if known is None:
            raise not_found()
        # Checked before the row is locked: the source database may take its time.
        values = await _changed(services, user, known, patch)
        async with services.schedules.transaction() as connection:
            now = await services.schedules.lock(connection, schedule_id, user_id=user.sees)
            if now is None:
                raise not_found()
            if now == known:
                return await services.schedules.update(connection, schedule_id, values)
        # A tick, the end of a run, or another change came between: what has been checked holds no more.


async def _pause(services: Services, user: User, schedule_id: UUID) -> Row[Any]:
    async with services.schedules.transaction() as connection:
        known = await services.schedules.lock(connection, schedule_id, user_id=user.sees)
        if known is None:
            raise not_found()
        if not known.active:
            return known
        return await services.schedules.update(
            connection, schedule_id, {"active": False, "next_run": None, **_paused_by_owner(services)}
        )


def _paused_by_owner(services: Services) -> dict[str, Any]:
    return {"paused_at": services.clock.now(), "paused_reason": None}


async def _changed(services: Services, user: User, known: Row[Any], patch: SchedulePatch) -> dict[str, Any]:
    """The columns of ``known`` with the changes of ``patch``."""
    order = _patched(known, patch)
    values = await _checked(services, user, known.user_id, order, known)
    same_calendar = all(values[name] == getattr(known, name) for name in CALENDAR)
    if known.active and order.active and same_calendar and known.next_run is not None:
        del values["next_run"]
    if order.active and not known.active:
        values |= {"failures": 0, "paused_at": None, "paused_reason": None}
    if known.active and not order.active:
        values |= _paused_by_owner(services)
    return values


def _patched(known: Row[Any], patch: SchedulePatch) -> ScheduleOrder:
    changes = patch.model_dump(exclude_unset=True)
    values: dict[str, Any] = {name: getattr(known, name) for name in (*ASKED, *CALENDAR)}
    values |= {name: getattr(known, name) for name in ("window", "delay", "catch_up", "active")}
    values["recipients"] = known.email_recipients
    if "schedule" in changes and changes["schedule"] != known.schedule:
        values["day"] = None
        if changes["schedule"] not in PERIODS:
            values["time_of_day"] = None
    values |= changes
    # What is set to null is as if it had never been said.
    said = {name: value for name, value in values.items() if value is not None}
    try:
        return ScheduleOrder.model_validate(said)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise Rejected(problem["msg"][0].lower() + problem["msg"][1:], field=field) from error


async def _checked(
    services: Services, user: User, owner: str, order: ScheduleOrder, known: Row[Any] | None
) -> dict[str, Any]:
    """The columns of a schedule that is allowed and makes sense."""
    now = await services.clock.read()
    calendar = Calendar.of(
        order.schedule, timezone=order.timezone, time_of_day=order.time_of_day, day=order.day
    )
    granted = _grant(services, user, owner, order, known)
    # The right to scope all has been dealt with; whose rows scope own are does not depend on who asks.
    asker = replace(user, id=owner, roles=user.roles | {"exports:all"})
    request = ExportRequest.parse(event_of(services, asker, order, None).data)
    await check_against_table(services, request)
    return {
        **{name: getattr(order, name) for name in ("export_type", "format", "filters", "columns", "webhook")},
        "options": order.options.model_dump(mode="json", exclude_unset=True) if order.options else None,
        "scope": request.scope,
        "email_recipients": request.recipients or None,
        "schedule": calendar.schedule,
        "timezone": calendar.zone.key,
        "time_of_day": None if calendar.is_cron else f"{calendar.at:%H:%M}",
        "day": calendar.day,
        "window": order.window,
        "delay": order.delay,
        "catch_up": order.catch_up,
        "active": order.active,
        "next_run": calendar.next_run(now) if order.active else None,
        "window_start": _mark(order, known, now),
        "column_kinds": await _kinds(services, order),
        **granted,
    }


def _grant(
    services: Services, user: User, owner: str, order: ScheduleOrder, known: Row[Any] | None
) -> dict[str, Any]:
    """The leave to take every row: only the owner can renew it, and only with the role."""
    if order.scope != "all":
        return {"all_rows_until": None}
    if user.id != owner:
        if known is None or known.scope != "all":
            raise Problem(403, "scope_not_allowed", "Only its owner can give it scope all", field="scope")
        return {}
    if not user.may_export_all:
        raise Problem(403, "scope_not_allowed", "Scope all needs the role exports:all", field="scope")
    rights = Rights.of(services.settings)
    if not rights.allow(owner):
        raise Problem(
            403,
            "scope_not_allowed",
            "Your schedules may not take every row; operators: EXPORTER_SCHEDULE_ALL_USERS lists whose may",
            field="scope",
        )
    return {"all_rows_until": services.clock.now() + rights.grant}


def _mark(order: ScheduleOrder, known: Row[Any] | None, now: datetime) -> datetime | None:
    """Where the next window begins; ``None``: at the beginning of its period."""
    if order.window is Windowing.NONE:
        if order.window_from is not None:
            raise Rejected("there is no window; choose one, or leave it out", field="window_from")
        return None
    if order.window_from is not None:
        return order.window_from
    mark: datetime | None = known.window_start if known is not None else None
    return now if mark is None and order.window is Windowing.SINCE_LAST_RUN else mark


async def _kinds(services: Services, order: ScheduleOrder) -> dict[str, str] | None:
    """Kinds of the columns that windows and relative values are about."""
    dataset = services.datasets[order.export_type]
    columns = (await services.catalog.table(dataset)).every
    names = set(order.filters or ())
    if order.window is not Windowing.NONE:
        if dataset.time is None or columns[dataset.time].kind not in TEMPORAL:
            raise Rejected(
                f"dataset {dataset.name!r} has no time column that a window could limit",
                code="no_time_column",
                field="window",
                allowed=[Windowing.NONE],
            )
        if dataset.time in names:
            raise Rejected(
                "the window limits this column; filter it without a window, or leave it out",
                code="filter_and_window",
                field=f"filters.{dataset.time}",
            )
        names.add(dataset.time)
    return {name: columns[name].kind for name in sorted(names) if columns[name].kind in TEMPORAL} or None

"""Runs that somebody asks for, beside the calendar."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import User
from api.orders import in_doubt, too_many
from api.problems import Problem
from api.schedules import end_grant, not_found
from api.services import Services
from stream_app import tracing
from stream_app.errors import InDoubt
from stream_app.jobs.admission import job_row, request_of
from stream_app.jobs.requests import Placed, lock_orders
from stream_app.schedules.plan import Run, starts_at
from stream_app.schedules.rights import Rights
from stream_app.schedules.runs import calendar_of, order_of, unlimited, why
from stream_app.schedules.windows import Window, Windowing, period_before


async def run_now(services: Services, user: User, schedule_id: UUID, key: str | None) -> UUID:
    """Start a run beside the calendar; with the same ``key`` again it is the same job.

    Raises:
        Problem: there is no such schedule, or it may not run now.
        Retryable: a part is away; nothing was started.
    """
    job_id = uuid4() if key is None else uuid5(schedule_id, f"key {key}")
    if key is not None and await services.records.get(job_id) is not None:
        if await services.schedules.get(schedule_id, user_id=user.sees) is None:
            raise not_found()
        return job_id
    try:
        row = await _record(services, user, schedule_id, job_id)
    except InDoubt as error:
        raise in_doubt(job_id) from error
    if row is not None:
        services.relay.soon(request_of(SimpleNamespace(**row)))
    return job_id


async def _record(services: Services, user: User, schedule_id: UUID, job_id: UUID) -> dict[str, Any] | None:
    """Commit the run's job and how far its schedule has come; ``None``: it was there already."""
    await end_grant(services, user, schedule_id)
    now = await services.clock.read()
    async with services.schedules.transaction() as connection:
        schedule = await services.schedules.lock(connection, schedule_id, user_id=user.sees)
        if schedule is None:
            raise not_found()
        schedule = await _renewed(services, user, schedule, now, connection)
        run, row = _planned(services, schedule, now, job_id)
        row["traceparent"] = tracing.current().traceparent
        await connection.execute(text(lock_orders(schedule.user_id)))
        limit = services.settings.user_pending_limit
        placed = await services.store.place_within(connection, row, limit=limit)
        if placed is Placed.TOO_MANY:
            raise too_many(services)
        if placed is Placed.KNOWN:
            return None
        if run.window is not None and not run.again:
            mark = {"window_start": run.window.end}
            await services.schedules.update(connection, schedule_id, mark)
    return row


async def _renewed(
    services: Services, user: User, schedule: Row[Any], now: datetime, connection: AsyncConnection
) -> Row[Any]:
    """Whoever runs it shows their role anew, or must live with what the schedule may still do."""
    if schedule.scope != "all":
        return schedule
    rights = Rights.of(services.settings)
    if user.id == schedule.user_id and not user.may_export_all:
        raise Problem(403, "scope_not_allowed", "Scope all needs the role exports:all", field="scope")
    if user.id == schedule.user_id and rights.allow(user.id):
        values = {"all_rows_until": now + rights.grant}
        return await services.schedules.update(connection, schedule.id, values)
    refusal = rights.refusal(schedule, now)
    if refusal is not None:
        raise Problem(403, refusal.code, str(refusal), field="scope")
    return schedule


def _planned(
    services: Services, schedule: Row[Any], now: datetime, job_id: UUID
) -> tuple[Run, dict[str, Any]]:
    """The run, and the row of its job.

    Raises:
        Problem: it cannot run as it is stored, or not now.
    """
    try:
        moves = schedule.window == Windowing.SINCE_LAST_RUN
        run = Run(now.replace(microsecond=0), _window_now(schedule, now), again=not moves)
        dataset = services.datasets.get(schedule.export_type)
        order = order_of(schedule, run, dataset, calendar_of(schedule).zone, job_id=job_id)
        row = job_row(
            order.event.model_copy(update={"data": {**order.event.data, "priority": "normal"}}),
            now=now,
            formats=services.formats,
            datasets=services.datasets,
            addressing=services.addressing,
            refusal=unlimited(run, dataset),
        )
    except Problem:
        raise
    except Exception as error:  # whatever is stored there: its owner is to know what is the matter
        raise _unusable(str(why(error))) from error
    if row["outcome"] is not None:
        raise _unusable(row["outcome"]["error"]["message"])
    not_before = starts_at(run, schedule.delay)
    held_back = run.window is not None and not_before > now
    return run, row | order.record | {"not_before": not_before if held_back else None}


def _unusable(reason: str) -> Problem:
    return Problem(
        409, "schedule_unusable", f"The schedule cannot run as it is; change or delete it. {reason}"
    )


def _window_now(schedule: Row[Any], now: datetime) -> Window | None:
    """What a run beside the calendar stands for: the last whole period again, or all since the last run."""
    calendar = calendar_of(schedule)
    match Windowing(schedule.window):
        case Windowing.NONE:
            return None
        case Windowing.PREVIOUS_PERIOD:
            return period_before(calendar, (calendar.previous(now) or now) if calendar.is_cron else now)
        case Windowing.SINCE_LAST_RUN:
            end = now.replace(microsecond=0) - timedelta(seconds=schedule.delay)
            if schedule.window_start is not None and end <= schedule.window_start:
                raise Problem(
                    409,
                    "nothing_new",
                    f"The last window reaches to {schedule.window_start.isoformat()}, and rows may arrive "
                    f"{schedule.delay} s late: there is nothing to export yet",
                )
            return Window(schedule.window_start or end, end)

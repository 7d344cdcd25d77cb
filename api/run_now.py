"""Runs that somebody asks for, beside the calendar."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import User
from api.problems import Problem
from api.schedules import not_found
from api.services import Services
from stream_app import tracing
from stream_app.events import EventType, lifecycle_event
from stream_app.jobs.admission import job_row
from stream_app.schedules.plan import Run
from stream_app.schedules.rights import Rights
from stream_app.schedules.runs import calendar_of, order_of, unlimited, why
from stream_app.schedules.windows import Window, Windowing, period_before


async def run_now(services: Services, user: User, schedule_id: UUID, key: str | None) -> UUID:
    """Start a run beside the calendar; with the same ``key`` again it is the same job.

    Raises:
        Problem: there is no such schedule, or it may not run now.
        Retryable: a part is away; nothing was started.
    """
    now = datetime.now(UTC)
    async with services.schedules.transaction() as connection:
        schedule = await services.schedules.lock(connection, schedule_id, user_id=user.sees)
        if schedule is None:
            raise not_found()
        job_id = uuid4() if key is None else uuid5(schedule_id, f"key {key}")
        if key is not None and await services.records.get(job_id) is not None:
            return job_id
        await _check_backlog(services, schedule.user_id)
        schedule = await _renewed(services, user, schedule, connection)
        run, row = _planned(services, schedule, now, job_id)
        row["traceparent"] = tracing.current().traceparent
        accepted = await services.store.admit(connection, [row])
        if run.window is not None and not run.again:
            mark = {"window_start": run.window.end}
            await services.schedules.update(connection, schedule_id, mark)
        for data in accepted:
            await services.publisher.publish(lifecycle_event(EventType.ACCEPTED, data))
    return job_id


async def _check_backlog(services: Services, user_id: str) -> None:
    limit = services.settings.user_pending_limit
    if await services.records.unfinished(user_id) >= limit:
        raise Problem(
            429,
            "too_many_jobs",
            f"There may be {limit} unfinished jobs of one user; wait for one to end, or cancel one",
            headers={"Retry-After": "30"},
        )


async def _renewed(
    services: Services, user: User, schedule: Row[Any], connection: AsyncConnection
) -> Row[Any]:
    """Whoever runs it shows their role anew, or must live with what the schedule may still do."""
    if schedule.scope != "all":
        return schedule
    rights = Rights.of(services.settings)
    now = datetime.now(UTC)
    if user.id == schedule.user_id and user.may_export_all and rights.allow(user.id):
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
    return run, row | order.record | {"admitted_at": now}


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

"""Creates, changes and runs schedules. A request is checked as if the export ran now."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4, uuid5

import structlog
from pydantic import ValidationError
from sqlalchemy import text

from api.auth.authenticator import User
from api.errors import RETRY_SECONDS, Problem
from api.jobs.submission import in_doubt, too_many
from api.jobs.validation import check_against_table, refuse_large
from api.schedules.grants import end_lost_grants, renew_grants
from api.schedules.schemas import ScheduleOrder, SchedulePatch
from api.schedules.validation import validate_schedule
from api.schedules.windows import change_gaps, column_kinds, is_due, next_window_start
from api.services import ApiServices
from stream_app.chat_addresses import whole_addresses
from stream_app.datasets.caller import Caller
from stream_app.exports.format_options import kept_options
from stream_app.jobs.new_job import REQUEST_COLUMNS, NewJob, request_event_of
from stream_app.jobs.submission import SubmitResult, submit_lock_sql, submit_within_limit
from stream_app.observability import tracing
from stream_app.schedules.calendar import PERIODS
from stream_app.schedules.due_runs import Run, earliest_start
from stream_app.schedules.grants import SchedulePermissions, dataset_of
from stream_app.schedules.models import Schedule
from stream_app.schedules.run_planner import (
    calendar_of,
    first_window_start,
    missing_time_column,
    planning_error,
    run_request,
)
from stream_app.schedules.windows import Window, Windowing, period_before
from streaming_exporter.errors import InDoubt, Rejected
from streaming_exporter.validation import field_of, with_value

log = structlog.get_logger(__name__)

CALENDAR = ("schedule", "time_of_day", "day", "timezone")
ASKED = tuple(name for name in REQUEST_COLUMNS if name not in ("user_id", "claims", "recipients"))
"""Fields of a request that its owner gives in the same way for a schedule."""

CLOCK_ERROR = timedelta(minutes=1)
"""More than the difference between two APIs that both read the clock of the database."""

IDEMPOTENCY = UUID("0b8f4a56-5b0d-4a39-8f0e-6a1f4be0c2d7")
"""Namespace of the ids of schedules of requests with an ``Idempotency-Key``."""


def not_found() -> Problem:
    """Return the problem of a schedule that does not exist or belongs to another user, with the same text."""
    return Problem(404, "not_found", "There is no such schedule, or it belongs to another user")


async def create(services: ApiServices, user: User, order: ScheduleOrder, key: str | None) -> Schedule:
    """Record a new schedule and return its row. The same ``key`` is the same schedule.

    Raises:
        Rejected: a field is invalid; the text names the field.
        Problem: the user's roles or the limit of schedules do not allow it, the key was used for another
            schedule, or it is not known whether the schedule was recorded.
    """
    limit = services.settings.user_schedule_limit
    schedule_id = uuid4() if key is None else uuid5(IDEMPOTENCY, f"{len(user.id)}:{user.id}:{key}")
    if key is not None:
        current = await services.schedules.get(schedule_id, user_id=user.id)
        if current is not None:
            return await _require_same_schedule(services, user, current, order)
    values = await checked_values(services, user, user.id, order, None)
    new = {"id": schedule_id, "user_id": user.id, **values}
    try:
        found = await services.schedules.create(new, limit=limit)
    except InDoubt as error:
        raise _creation_in_doubt(schedule_id) from error
    if found is None:
        raise Problem(
            409,
            "too_many_schedules",
            f"You have reached the limit of {limit} schedules. Delete or change one",
        )
    row, is_new = found
    return (
        row if is_new else await _require_same_schedule(services, user, row, order)
    )  # another call was first


async def _require_same_schedule(
    services: ApiServices, user: User, current: Schedule, order: ScheduleOrder
) -> Schedule:
    """Return the schedule of an earlier call with the same key, if that call asked for the same.

    Raises:
        Problem: it asked for another one, or the schedule was changed since.
    """
    values = validate_schedule(services, user, user.id, order, None).columns
    was_active = current.active or current.paused_reason is not None  # the service has paused it
    if (
        any(getattr(current, name) != value for name, value in values.items())
        or was_active != order.active
        or not await _can_begin(services, current, order.window_from)
    ):
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another schedule, or that schedule was changed since. Send a "
            "new key with a new request",
            field="Idempotency-Key",
        )
    return current


async def _can_begin(services: ApiServices, current: Schedule, window_from: datetime | None) -> bool:
    """Return whether the first window of a schedule can have begun at ``window_from``.

    Each run moves the start of the next window, and none moves it to a time before the first one. Without
    ``window_from`` the first window begins at the time of the call or before, and each later one too.
    """
    start = current.window_start
    if window_from is None:
        return start is None or start < await services.clock.read() + CLOCK_ERROR
    if start == window_from:
        return True
    return (
        start is not None and window_from < start and bool(await services.schedules.runs(current.id, limit=1))
    )


def _creation_in_doubt(schedule_id: UUID) -> Problem:
    """Return the problem of a request of which it is not known whether its schedule was recorded."""
    here = f"/exports/schedules/{schedule_id}"
    return Problem(
        503,
        InDoubt.code,
        "The state database did not confirm the request, so it is not known whether the schedule was "
        f"recorded. Read {here} before you repeat the request, or repeat it with the same Idempotency-Key",
        headers={"Retry-After": str(RETRY_SECONDS), "Location": here},
    )


async def change(services: ApiServices, user: User, schedule_id: UUID, patch: SchedulePatch) -> Schedule:
    """Change a schedule and return its row. The result is validated, except that a pause is always possible.

    Raises:
        Rejected: a field is invalid after the change.
        Problem: there is no such schedule, or the change is not allowed.
    """
    await end_lost_grants(services, user, schedule_id)
    if patch.model_fields_set == {"active"} and patch.active is False:
        return await _pause(services, user, schedule_id)
    while True:
        current = await services.schedules.get(schedule_id, user_id=user.data_owner)
        if current is None:
            raise not_found()
        # Checked before the row is locked, because the source database can be slow.
        values = await changed_values(services, user, current, patch)
        async with services.schedules.transaction() as connection:
            locked = await services.schedules.lock(connection, schedule_id, user_id=user.data_owner)
            if locked is None:
                raise not_found()
            if locked == current:
                _refuse_other_window(services, current, values)
                row = await services.schedules.update(connection, schedule_id, values)
                await change_gaps(services, connection, current, row, patch.window_from)
                return row
        # A tick, the end of a run or another change has changed the row, so it is checked again.


async def _pause(services: ApiServices, user: User, schedule_id: UUID) -> Schedule:
    async with services.schedules.transaction() as connection:
        current = await services.schedules.lock(connection, schedule_id, user_id=user.data_owner)
        if current is None:
            raise not_found()
        if not current.active:
            return current
        values = {"active": False, "next_run": None, "window_start": first_window_start(current)}
        return await services.schedules.update(connection, schedule_id, values | _paused_by_owner(services))


def _paused_by_owner(services: ApiServices) -> dict[str, Any]:
    return {"paused_at": services.clock.now(), "paused_reason": None, "paused_code": None}


async def changed_values(
    services: ApiServices, user: User, current: Schedule, patch: SchedulePatch
) -> dict[str, Any]:
    """Return the columns of ``current`` with the changes of ``patch``."""
    order = _patched(services, current, patch)
    values = await checked_values(services, user, current.user_id, order, current)
    has_next = current.active and order.active and current.next_run is not None
    if has_next and (_same_calendar(current, values) or is_due(current, services.clock.now())):
        del values["next_run"]
    if order.active and not current.active:
        values |= {"failures": 0, "paused_at": None, "paused_reason": None, "paused_code": None}
    if current.active and not order.active:
        values |= _paused_by_owner(services)
    return values


def _same_calendar(current: Schedule, values: dict[str, Any]) -> bool:
    return all(values[name] == getattr(current, name) for name in CALENDAR)


def _refuse_other_window(services: ApiServices, current: Schedule, values: dict[str, Any]) -> None:
    """Refuse a change that would give a run that is due the period of another calendar.

    Raises:
        Problem: a run is due.
    """
    if not values["active"] or values["window"] != Windowing.PREVIOUS_PERIOD:
        return
    if is_due(current, services.clock.now()) and not _same_calendar(current, values):
        raise Problem(
            409,
            "run_due",
            "A run of this schedule is due, and another calendar would change its window. Try again in a "
            "minute, when it has begun",
            field=next(name for name in CALENDAR if values[name] != getattr(current, name)),
        )


def _patched(services: ApiServices, current: Schedule, patch: SchedulePatch) -> ScheduleOrder:
    changes = patch.model_dump(exclude_unset=True)
    values: dict[str, Any] = {name: getattr(current, name) for name in (*ASKED, *CALENDAR)}
    values |= {name: getattr(current, name) for name in ("window", "delay", "catch_up", "active")}
    values["recipients"] = current.email_recipients
    if "schedule" in changes and changes["schedule"] != current.schedule:
        values["day"] = None
        if changes["schedule"] not in PERIODS:
            values["time_of_day"] = None
    values |= changes
    if values["recipients"]:
        values["recipients"] = whole_addresses(values["recipients"], current.email_recipients)
    file_format = services.formats.get(values["format"])
    if "options" not in changes and current.options and file_format is not None:
        values["options"] = kept_options(current.options, file_format)
    # A field that is set to null has its default.
    given = {name: value for name, value in values.items() if value is not None}
    try:
        return ScheduleOrder.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise Rejected(with_value(problem), field=field_of(problem)) from error


async def checked_values(
    services: ApiServices, user: User, owner: str, order: ScheduleOrder, current: Schedule | None
) -> dict[str, Any]:
    """Validate a schedule and return its columns."""
    now = await services.clock.read()
    given = validate_schedule(services, user, owner, order, current)
    await check_against_table(services, given.request)
    kinds = await column_kinds(services, order, Caller.of(given.request))
    return {
        **given.columns,
        "active": order.active,
        "next_run": given.calendar.next_run(now) if order.active else None,
        "window_start": next_window_start(services, order, current, now, kinds),
        "column_kinds": kinds,
        **given.grants,
    }


async def run_now(services: ApiServices, user: User, schedule_id: UUID, key: str | None) -> UUID:
    """Start a run in addition to the calendar and return its job's id. The same ``key`` is the same job.

    Raises:
        Problem: there is no such schedule, or it cannot run now.
        Retryable: a part is unavailable, and nothing was started.
    """
    job_id = uuid4() if key is None else uuid5(schedule_id, f"key {key}")
    if key is not None and await services.job_queries.get(job_id) is not None:
        if await services.schedules.get(schedule_id, user_id=user.data_owner) is None:
            raise not_found()
        return job_id
    try:
        job = await _record(services, user, schedule_id, job_id)
    except InDoubt as error:
        raise in_doubt(job_id) from error
    if job is not None:
        services.relay.soon(request_event_of(job))
    return job_id


async def _record(services: ApiServices, user: User, schedule_id: UUID, job_id: UUID) -> NewJob | None:
    """Commit the job of a run and the new ``window_start``; return ``None`` if the job exists already."""
    await end_lost_grants(services, user, schedule_id)
    now = await services.clock.read()
    async with services.schedules.transaction() as connection:
        schedule = await services.schedules.lock(connection, schedule_id, user_id=user.data_owner)
        if schedule is None:
            raise not_found()
        schedule = await renew_grants(services, user, schedule, now, connection)
        run, job = _planned(services, schedule, now, job_id)
        job = replace(job, traceparent=tracing.current_span().traceparent)
        refuse_large(request_event_of(job).encode())
        await connection.execute(text(submit_lock_sql(schedule.user_id)))
        limit = services.settings.user_pending_limit
        result = await submit_within_limit(connection, job, user_limit=limit)
        if result is SubmitResult.TOO_MANY:
            raise too_many(services)
        if result is SubmitResult.KNOWN:
            return None
        if run.window is not None and not run.is_repeat:
            window_start = {"window_start": run.window.end}
            await services.schedules.update(connection, schedule_id, window_start)
    return job


def _planned(services: ApiServices, schedule: Schedule, now: datetime, job_id: UUID) -> tuple[Run, NewJob]:
    """Return the run and its job.

    Raises:
        Problem: the stored schedule is invalid, or it cannot run now.
    """
    try:
        moves = schedule.window == Windowing.SINCE_LAST_RUN
        run = Run(now.replace(microsecond=0), _window_now(schedule, now), is_repeat=not moves)
        dataset = dataset_of(services.datasets, schedule)
        request = run_request(schedule, run, dataset, calendar_of(schedule).zone, job_id=job_id)
        event = request.event.model_copy(update={"data": {**request.event.data, "priority": "normal"}})
        refusal = missing_time_column(run, dataset)
        job = replace(request, event=event).job(services.validator, now=now, refusal=refusal)
    except Problem:
        raise
    except Exception as error:  # the stored values can be anything, and the owner needs the reason
        raise _unusable(str(planning_error(error))) from error
    if job.outcome is not None:
        raise _unusable(job.outcome.error.message if job.outcome.error else "")
    not_before = earliest_start(run, schedule.delay)
    if run.window is None or not_before <= now:
        return run, replace(job, not_before=None)
    lapsed = SchedulePermissions.of(services.settings).refusal(schedule, not_before)
    if lapsed is not None:  # before the run starts
        raise Problem(403, lapsed.code, str(lapsed), field=lapsed.field)
    return run, replace(job, not_before=not_before)


def _unusable(reason: str) -> Problem:
    return Problem(
        409,
        "schedule_unusable",
        f"The schedule is not valid, so it cannot run. Change or delete it. {reason}",
    )


def _window_now(schedule: Schedule, now: datetime) -> Window | None:
    """Return the window of an additional run: the last complete period, or the time since the last run."""
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
                    f"The last window ends at {schedule.window_start.isoformat()}, and the schedule waits "
                    f"{schedule.delay} s for late rows, so there is nothing to export yet. Try again later",
                )
            return Window(schedule.window_start or end, end)

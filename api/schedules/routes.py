"""Calls about schedules: create, list, read, change, run, delete, and list their runs."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api import audit_log, pagination
from api.auth.authenticator import CurrentUser, User
from api.errors import Problem, problem_responses
from api.exact_bodies import ExactRoute
from api.jobs.schemas import JOB_RECORDED, Accepted, IdempotencyKey, key_header
from api.middleware.disconnect import cancel_on_disconnect
from api.schedules import changes as schedules
from api.schedules.changes import run_now
from api.schedules.estimates import estimate_changed, estimate_new
from api.schedules.schemas import (
    RunPage,
    RunView,
    ScheduleEstimate,
    ScheduleOrder,
    SchedulePage,
    SchedulePatch,
    ScheduleView,
)
from api.services import ApiServices, InjectedServices
from stream_app.jobs.states import Status
from stream_app.schedules.models import Schedule

router = APIRouter(prefix="/exports/schedules", tags=["schedules"], route_class=ExactRoute)

ScheduleKey = Annotated[
    str | None,
    key_header("Makes the call repeatable: the same call with the same key is the same schedule"),
]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")]


async def find_schedule(services: ApiServices, user: User, schedule_id: UUID) -> Schedule:
    """Return the schedule if the user can see it.

    Raises:
        Problem: 404 if the user cannot see it.
    """
    found = await services.schedule_reads.get(schedule_id, user_id=user.data_owner)
    if found is None:
        raise schedules.not_found()
    audit_log.set_object("schedule", schedule_id, owner=found.user_id)
    return found


async def _views(services: ApiServices, rows: Sequence[Schedule]) -> list[ScheduleView]:
    """Return the views of schedules, with the recipients who have unsubscribed."""
    recipients = {row.id: row.email_recipients for row in rows if row.email_recipients}
    gone = await services.outbox.unsubscribed(recipients)
    return [ScheduleView.of(row, services.clock.now(), gone.get(row.id, ())) for row in rows]


async def _view(services: ApiServices, row: Schedule) -> ScheduleView:
    """Return the view of one schedule."""
    (view,) = await _views(services, [row])
    return view


@router.post(
    "",
    operation_id="createSchedule",
    status_code=201,
    response_model=ScheduleView,
    responses={
        201: {
            "description": "The schedule is recorded",
            "headers": {"Location": {"description": "The schedule", "schema": {"type": "string"}}},
        },
        **problem_responses(400, 401, 403, 409, 413, 422, 500, 503),
    },
)
async def create_schedule(
    order: ScheduleOrder,
    services: InjectedServices,
    user: CurrentUser,
    response: Response,
    idempotency_key: ScheduleKey = None,
) -> ScheduleView:
    """Create a schedule.

    The request is checked as if the export ran now.

    Filter values of dates and times can be relative, such as `now-7d`, `today` or `start_of_month-1mo`.

    A call with the `Idempotency-Key` of an earlier one has the schedule that was made then, as it is now. If
    it asks for another schedule, or the schedule was changed since, it is 422 (`idempotency_key_reused`).
    A call without `window_from` also finds a schedule that was made with a `window_from` in the past.
    The key of a schedule that was deleted makes one with the same id, which has the runs of the deleted one,
    and whose mails do not reach those who have unsubscribed from it.
    """
    row = await schedules.create(services, user, order, idempotency_key)
    audit_log.set_object("schedule", row.id, owner=row.user_id)
    response.headers["Location"] = f"/exports/schedules/{row.id}"
    return ScheduleView.of(row, services.clock.now())


@router.post(
    ":estimate",
    operation_id="estimateSchedule",
    response_model=ScheduleEstimate,
    responses=problem_responses(400, 401, 403, 413, 422, 500, 503),
)
async def estimate_schedule(
    request: Request, order: ScheduleOrder, services: InjectedServices, user: CurrentUser
) -> ScheduleEstimate:
    """Estimate the size of a run of a schedule.

    Estimates rows and bytes as POST /exports/jobs:estimate does, with the window of the last run that
    would have taken place. It refuses the same schedules as POST.
    """
    return await cancel_on_disconnect(request, estimate_new(services, user, order))


@router.get(
    "",
    operation_id="listSchedules",
    response_model=SchedulePage,
    responses=problem_responses(401, 403, 422, 500, 503),
)
async def list_schedules(
    services: InjectedServices,
    user: CurrentUser,
    active: Annotated[
        bool | None, Query(description="true: only active schedules; false: only paused schedules")
    ] = None,
    user_id: Annotated[
        str | None,
        Query(
            max_length=255, description="Only schedules of this user. Other users need the role exports:admin"
        ),
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> SchedulePage:
    """Your schedules, newest first.

    The role `exports:admin` lists the schedules of all users.
    """
    if user_id is not None and user_id != user.id and not user.is_admin:
        raise Problem(
            403, "role_missing", "The schedules of other users need the role exports:admin", field="user_id"
        )
    owner = user.data_owner if user_id is None else user_id
    audit_log.set_object("schedules", "all" if owner is None else "of", owner=owner)
    rows = await services.schedule_reads.list_newest(
        owner,
        active=active,
        before=pagination.decode(cursor) if cursor else None,
        limit=limit + 1,
    )
    shown, following = pagination.page_of(rows, limit)
    return SchedulePage(schedules=await _views(services, shown), next_cursor=following)


@router.get(
    "/{schedule_id}",
    operation_id="getSchedule",
    response_model=ScheduleView,
    responses=problem_responses(401, 404, 500, 503),
)
async def get_schedule(schedule_id: UUID, services: InjectedServices, user: CurrentUser) -> ScheduleView:
    """A schedule with its next five runs.

    `paused_reason` explains why the service has paused a schedule, and `paused_code` is the code of it.
    """
    return await _view(services, await find_schedule(services, user, schedule_id))


@router.patch(
    "/{schedule_id}",
    operation_id="changeSchedule",
    response_model=ScheduleView,
    responses=problem_responses(400, 401, 403, 404, 409, 413, 422, 500, 503),
)
async def change_schedule(
    schedule_id: UUID, patch: SchedulePatch, services: InjectedServices, user: CurrentUser
) -> ScheduleView:
    """Change, pause or resume a schedule.

    `{"active": false}` pauses, `{"active": true}` resumes. null sets a field to its default.

    A run that is due takes place, also after a change of the calendar. With `previous_period` the calendar
    cannot be changed while a run is due (409, `run_due`). If the windows are of days, the time zone cannot be
    changed while a run has not ended (409, `runs_unfinished`), or in a bundle with dates and times while the
    window of a failed run before `window_from` is left (409, `gaps_left`).
    """
    row = await schedules.change(services, user, schedule_id, patch)
    audit_log.set_object("schedule", row.id, owner=row.user_id)
    return await _view(services, row)


@router.post(
    "/{schedule_id}:estimate",
    operation_id="estimateChangedSchedule",
    response_model=ScheduleEstimate,
    responses=problem_responses(400, 401, 403, 404, 413, 422, 500, 503),
)
async def estimate_changed_schedule(
    request: Request,
    schedule_id: UUID,
    patch: SchedulePatch,
    services: InjectedServices,
    user: CurrentUser,
) -> ScheduleEstimate:
    """Estimate the size of a run after a change of the schedule.

    The rows are those of the schedule's owner. The schedule is not changed.
    """
    await find_schedule(services, user, schedule_id)  # writes the owner to the audit log
    return await cancel_on_disconnect(request, estimate_changed(services, user, schedule_id, patch))


@router.delete(
    "/{schedule_id}",
    operation_id="deleteSchedule",
    status_code=204,
    responses=problem_responses(401, 404, 500, 503),
)
async def delete_schedule(schedule_id: UUID, services: InjectedServices, user: CurrentUser) -> None:
    """Delete a schedule.

    Runs that have started continue, and their files are kept until they expire.
    """
    await find_schedule(services, user, schedule_id)  # writes the owner to the audit log
    if not await services.schedules.delete(schedule_id, user_id=user.data_owner):
        raise schedules.not_found()


@router.post(
    "/{schedule_id}:run",
    operation_id="runSchedule",
    status_code=202,
    response_model=Accepted,
    responses={
        202: JOB_RECORDED,
        **problem_responses(401, 403, 404, 409, 422, 429, 500, 503),
    },
)
async def run_schedule(
    schedule_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Run a schedule now.

    Starts a run in addition to those of the calendar, also while the schedule is paused.

    With the window `previous_period` the run exports the last complete period again. With `since_last_run`
    the window of the next run begins where the window of this run ends.
    """
    job_id = await run_now(services, user, schedule_id, idempotency_key)
    response.headers["Location"] = f"/exports/jobs/{job_id}"
    job = await services.job_queries.get(job_id)
    audit_log.set_object("job", job_id, owner=job.user_id if job else user.id)
    return Accepted(export_job_id=job_id, status=Status(job.status) if job else Status.PENDING)


@router.get(
    "/{schedule_id}/runs",
    operation_id="listRuns",
    response_model=RunPage,
    responses=problem_responses(401, 404, 422, 500, 503),
)
async def list_runs(
    schedule_id: UUID, services: InjectedServices, user: CurrentUser, limit: Limit = 20, cursor: Cursor = None
) -> RunPage:
    """List the runs of a schedule, newest first.

    Each run is a job. Its file and its manifest have the paths of every job.
    """
    await find_schedule(services, user, schedule_id)
    before = pagination.decode(cursor) if cursor else None
    rows = await services.schedule_reads.runs(schedule_id, before=before, limit=limit + 1)
    shown, following = pagination.page_of(rows, limit)
    return RunPage(runs=[RunView.of(row, services.clock.now()) for row in shown], next_cursor=following)

"""Schedules: make, see, change, run, remove; what became of their runs."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from sqlalchemy import Row

from api import audit_log, pagination
from api.auth.authenticator import CurrentUser, User
from api.errors import Problem, problem_responses
from api.jobs.schemas import Accepted
from api.schedules import service as schedules
from api.schedules.schemas import RunPage, RunView, ScheduleOrder, SchedulePage, SchedulePatch, ScheduleView
from api.schedules.service import run_now
from api.services import ApiServices, InjectedServices
from stream_app.jobs.states import Status

router = APIRouter(prefix="/exports/schedules", tags=["schedules"])

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200, description="next_cursor of the page before")]


async def visible_schedule(services: ApiServices, user: User, schedule_id: UUID) -> Row[Any]:
    """The schedule, if the user may see it.

    Raises:
        Problem: 404 otherwise.
    """
    found = await services.schedule_reads.get(schedule_id, user_id=user.data_owner)
    if found is None:
        raise schedules.not_found()
    audit_log.set_object("schedule", schedule_id, owner=found.user_id)
    return found


@router.post(
    "",
    operation_id="createSchedule",
    summary="Export on a calendar",
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
    order: ScheduleOrder, services: InjectedServices, user: CurrentUser, response: Response
) -> ScheduleView:
    """Everything is checked as if the export were asked for now.

    Filter values of dates and times may be relative, such as `now-7d`, `today` or `start_of_month-1mo`.
    """
    row = await schedules.create(services, user, order)
    audit_log.set_object("schedule", row.id, owner=row.user_id)
    response.headers["Location"] = f"/exports/schedules/{row.id}"
    return ScheduleView.of(row)


@router.get(
    "",
    operation_id="listSchedules",
    summary="Your schedules, newest first",
    response_model=SchedulePage,
    responses=problem_responses(401, 403, 422, 500, 503),
)
async def list_schedules(
    services: InjectedServices,
    user: CurrentUser,
    active: Annotated[bool | None, Query(description="Only those that are active, or paused")] = None,
    user_id: Annotated[
        str | None, Query(max_length=255, description="Only this user's: for the role exports:admin")
    ] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> SchedulePage:
    """With the role `exports:admin`: everybody's schedules."""
    if user_id is not None and user_id != user.id and not user.is_admin:
        raise Problem(403, "role_missing", "Others' schedules need the role exports:admin", field="user_id")
    owner = user.data_owner if user_id is None else user_id
    audit_log.set_object("schedules", "all" if owner is None else "of", owner=owner)
    rows = await services.schedule_reads.newest(
        owner,
        active=active,
        before=pagination.decode(cursor) if cursor else None,
        limit=limit + 1,
    )
    shown, following = pagination.page_of(rows, limit)
    return SchedulePage(schedules=[ScheduleView.of(row) for row in shown], next_cursor=following)


@router.get(
    "/{schedule_id}",
    operation_id="getSchedule",
    summary="A schedule and its next five runs",
    response_model=ScheduleView,
    responses=problem_responses(401, 404, 500, 503),
)
async def get_schedule(schedule_id: UUID, services: InjectedServices, user: CurrentUser) -> ScheduleView:
    """`paused_reason` says why a schedule was paused by the service."""
    return ScheduleView.of(await visible_schedule(services, user, schedule_id))


@router.patch(
    "/{schedule_id}",
    operation_id="changeSchedule",
    summary="Change, pause or resume a schedule",
    response_model=ScheduleView,
    responses=problem_responses(400, 401, 403, 404, 413, 422, 500, 503),
)
async def change_schedule(
    schedule_id: UUID, patch: SchedulePatch, services: InjectedServices, user: CurrentUser
) -> ScheduleView:
    """`{"active": false}` pauses, `{"active": true}` resumes; null sets back to the default."""
    row = await schedules.change(services, user, schedule_id, patch)
    audit_log.set_object("schedule", row.id, owner=row.user_id)
    return ScheduleView.of(row)


@router.delete(
    "/{schedule_id}",
    operation_id="deleteSchedule",
    summary="Remove a schedule",
    status_code=204,
    responses=problem_responses(401, 404, 500, 503),
)
async def delete_schedule(schedule_id: UUID, services: InjectedServices, user: CurrentUser) -> None:
    """Runs that have started go on, and their files stay for their time."""
    await visible_schedule(services, user, schedule_id)  # whose it is stands in the log
    if not await services.schedules.delete(schedule_id, user_id=user.data_owner):
        raise schedules.not_found()


@router.post(
    "/{schedule_id}:run",
    operation_id="runSchedule",
    summary="Run a schedule now",
    status_code=202,
    response_model=Accepted,
    responses={
        202: {
            "description": "The run is recorded",
            "headers": {"Location": {"description": "The job", "schema": {"type": "string"}}},
        },
        **problem_responses(401, 403, 404, 409, 422, 429, 500, 503),
    },
)
async def run_schedule(
    schedule_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(pattern=r"^[\x21-\x7e]+$", max_length=255, description="The same key is the same run"),
    ] = None,
) -> Accepted:
    """Beside its calendar, also while it is paused.

    With the window `previous_period` the last whole period is exported again; with `since_last_run` the run
    takes its place among the others, and the next one begins where it ends.
    """
    job_id = await run_now(services, user, schedule_id, idempotency_key)
    response.headers["Location"] = f"/exports/jobs/{job_id}"
    job = await services.records.get(job_id)
    audit_log.set_object("job", job_id, owner=job.user_id if job else user.id)
    return Accepted(export_job_id=job_id, status=Status(job.status) if job else Status.PENDING)


@router.get(
    "/{schedule_id}/runs",
    operation_id="listRuns",
    summary="What became of a schedule's runs, newest first",
    response_model=RunPage,
    responses=problem_responses(401, 404, 422, 500, 503),
)
async def list_runs(
    schedule_id: UUID, services: InjectedServices, user: CurrentUser, limit: Limit = 20, cursor: Cursor = None
) -> RunPage:
    """Each run is a job, whose file and manifest are where every job's are."""
    await visible_schedule(services, user, schedule_id)
    before = pagination.decode(cursor) if cursor else None
    rows = await services.schedule_reads.runs(schedule_id, before=before, limit=limit + 1)
    shown, following = pagination.page_of(rows, limit)
    return RunPage(runs=[RunView.of(row) for row in shown], next_cursor=following)

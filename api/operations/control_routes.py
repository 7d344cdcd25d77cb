"""Calls for operators: usage, why a job waits, pauses of claims, cancellation of a user's jobs, overview."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api import audit_log
from api.auth.authenticator import CurrentUser
from api.documented_route import DocumentedRoute
from api.errors import Problem, problem_responses
from api.jobs.routes import find_job
from api.operations.access import Operator, require_operator
from api.operations.cancellations import cancel_all
from api.operations.diagnosis import diagnose
from api.operations.overview import read_overview, view_of_pause
from api.operations.schemas import (
    Cancelled,
    CancelOrder,
    Diagnosis,
    DoctorReport,
    Overview,
    PauseList,
    PauseOrder,
    PauseView,
    UsageItem,
    UsageReport,
)
from api.services import InjectedServices
from api.time_limits import since_moment, until_moment
from stream_app.jobs.claim_pauses import check_scope
from stream_app.jobs.job_statistics import Grouping, Usage

router = APIRouter(prefix="/exports", tags=["operations"], route_class=DocumentedRoute)

_PROBLEMS = problem_responses(401, 403, 422, 500, 503)


@router.get(
    "/jobs/{job_id}/why",
    operation_id="explainExport",
    response_model=Diagnosis,
    responses=problem_responses(401, 403, 404, 500, 503),
)
async def explain_export(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Diagnosis:
    """Why a job waits, or what it does.

    Needs the role `exports:operate` or `exports:admin`. The text of an error needs `exports:admin`.
    """
    job = await find_job(services, user, job_id)
    await require_operator(user)
    return await diagnose(services, job, with_data=user.can_see_data(job.user_id))


@router.get(
    "/usage",
    operation_id="getUsage",
    response_model=UsageReport,
    responses=_PROBLEMS,
)
async def get_usage(
    services: InjectedServices,
    user: Operator,
    since: Annotated[
        str, Query(max_length=100, description="A time, a date, or such as `now-7d`")
    ] = "now-7d",
    until: Annotated[str | None, Query(max_length=100, description="Default: now")] = None,
    by: Annotated[Grouping, Query(description="What to group by")] = "both",
) -> UsageReport:
    """Who uses the service: jobs, rows and bytes by user and dataset.

    Counts the jobs that were requested in this time and are still on record (`EXPORTER_HISTORY_DAYS`).

    Needs the role `exports:operate` or `exports:admin`.
    """
    audit_log.set_object("usage", "all", owner=None)
    now = services.clock.now()
    begin, end = since_moment(since, now) or now, until_moment(until, now) or now
    total, groups, number = await services.statistics.usage(begin, end, by)
    return UsageReport(
        since=begin, until=end, total=_item(total), groups=number, items=[_item(group) for group in groups]
    )


def _item(usage: Usage) -> UsageItem:
    return UsageItem.model_validate(usage, from_attributes=True)


@router.get(
    "/pauses",
    operation_id="listPauses",
    response_model=PauseList,
    responses=_PROBLEMS,
)
async def list_pauses(services: InjectedServices, user: Operator) -> PauseList:
    """What workers do not claim at the moment.

    Needs the role `exports:operate` or `exports:admin`.
    """
    return PauseList(pauses=[view_of_pause(pause) for pause in await services.pauses.all()])


@router.post(
    "/pauses",
    operation_id="pauseClaims",
    response_model=PauseView,
    responses=_PROBLEMS,
)
async def pause_claims(order: PauseOrder, services: InjectedServices, user: Operator) -> PauseView:
    """Pause the claims of everything, of a source, of a dataset or of a user.

    Workers claim no more such jobs, within two seconds. Running exports go on, also those in parts.

    The pause survives restarts, until it is resumed. Requests are still accepted. Needs the role
    `exports:operate` or `exports:admin`.
    """
    audit_log.set_object("pause", order.scope, owner=None)
    check_scope(order.scope, services.datasets, services.source_monitor.states())
    await services.pauses.pause(order.scope, reason=order.reason, by=user.id)
    found = next((item for item in await services.pauses.all() if item.scope == order.scope), None)
    if found is None:
        raise Problem(409, "pause_ended", "The pause was ended by another call at the same time")
    return view_of_pause(found)


@router.delete(
    "/pauses",
    operation_id="resumeClaims",
    status_code=204,
    responses=problem_responses(401, 403, 404, 422, 500, 503),
)
async def resume_claims(
    services: InjectedServices,
    user: Operator,
    scope: Annotated[str, Query(max_length=300, description="The scope of the pause")] = "everything",
) -> Response:
    """End a pause.

    Workers claim such jobs again, within two seconds.

    Needs the role `exports:operate` or `exports:admin`.
    """
    audit_log.set_object("pause", scope, owner=None)
    if not await services.pauses.resume(scope):
        raise Problem(404, "not_found", f"There is no pause of {scope!r}", field="scope")
    return Response(status_code=204)


@router.post(
    "/jobs:cancel",
    operation_id="cancelExports",
    status_code=202,
    response_model=Cancelled,
    responses={202: {"description": "The cancellations are recorded"}, **_PROBLEMS},
)
async def cancel_exports(order: CancelOrder, services: InjectedServices, user: Operator) -> Cancelled:
    """Cancel all unfinished jobs of a user.

    Files of completed jobs stay. Jobs that are requested during the call are possibly not cancelled.

    Needs the role `exports:operate` or `exports:admin`.
    """
    audit_log.set_object("jobs", "of", owner=order.user_id)
    return Cancelled(export_job_ids=await cancel_all(services, order.user_id, by=user.id))


@router.get(
    "/operations",
    operation_id="getOperations",
    response_model=Overview,
    responses=_PROBLEMS,
)
async def get_operations(services: InjectedServices, user: Operator) -> Overview:
    """Workers, queue, schedules and deliveries at a glance.

    Needs the role `exports:operate` or `exports:admin`.
    """
    return await read_overview(services)


@router.get(
    "/operations/doctor",
    operation_id="getDoctorReport",
    response_model=DoctorReport,
    responses=_PROBLEMS,
)
async def get_doctor_report(services: InjectedServices, user: Operator) -> DoctorReport:
    """The cheap checks of `exporter doctor`.

    Checks settings, datasets, the state database and Kafka, at most every ten seconds.

    Needs the role `exports:operate` or `exports:admin`.
    """
    return await services.doctor.report()

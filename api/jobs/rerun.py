"""Runs a job again: a new job with the same request. Relative dates count from the new job on."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

from pydantic import ValidationError

from api.auth.authenticator import User
from api.auth.callers import claims_for, kept_claims
from api.error_meanings import meaning_of
from api.errors import Problem
from api.jobs.submission import record_job
from api.jobs.validation import check_against_table, dataset_for, event_of
from api.services import ApiServices
from stream_app.datasets.rights import ALL
from stream_app.jobs.erasure import is_forgotten
from stream_app.jobs.models import ExportJob
from stream_app.jobs.new_job import new_job, request_event_of
from stream_app.jobs.states import Status
from stream_app.schedules.grants import SchedulePermissions
from streaming_exporter.errors import Rejected


async def rerun_job(
    services: ApiServices, user: User, job: ExportJob, key: str | None
) -> tuple[UUID, Status]:
    """Submit a job with the request and the owner of ``job``. The same ``key`` is the same new job.

    The owner needs the rights of the request now. Other users give the new job no rights of their own: it has
    those with which the owner made the request, for as long as a schedule would keep them.

    Raises:
        Rejected: the request is not valid any more.
        Problem: the request is not allowed, a limit is reached, or it is not known whether the job was
            recorded.
        Retryable: a part is unavailable. There is no new job.
    """
    job_id = uuid4() if key is None else uuid5(job.id, f"rerun {len(user.id)}:{user.id}:{key}")
    if key is not None and (known := await services.job_queries.get(job_id)) is not None:
        return known.id, Status(known.status)
    try:
        await _record(services, user, job, job_id)
    except Rejected as error:
        if user.can_see_data(job.user_id):
            raise
        raise Rejected(
            f"the request of this job is not valid any more: {meaning_of(error.code)}",
            code=error.code,
        ) from error
    return job_id, Status.PENDING


async def _record(services: ApiServices, user: User, job: ExportJob, job_id: UUID) -> None:
    now = services.clock.now()
    data, rights_at = _request_of(job), None
    if user.id == job.user_id:
        dataset = dataset_for(services, user, job.export_type)
        data["claims"] = claims_for(user, dataset, services.datasets.destination(job.destination))
        if job.scope == ALL and not user.can_export_all:
            raise _refused("Scope all needs the role exports:all. Ask for that role")
    elif job.scope == ALL or job.claims:
        rights_at = await _rights_at(services, job, now)
    event, request = event_of(services, {name: value for name, value in data.items() if value}, job_id)
    await check_against_table(services, request, window=job.window)
    # The mark is for the destination, where two runs of a schedule are due at the same time.
    window = job.window and {name: value for name, value in job.window.items() if name != "gap"}
    again = replace(new_job(event, request, now=now), window=window, rerun_of=job.id, rights_at=rights_at)
    await record_job(services, event, again)


def _request_of(job: ExportJob) -> dict[str, Any]:
    """Return the data of the job's request, without its priority: the new job has the default one."""
    if is_forgotten(job.id, job.user_id):
        raise Problem(409, "forgotten", "The request of this job was erased, so it cannot run again")
    try:
        return {name: value for name, value in request_event_of(job).data.items() if name != "priority"}
    except ValidationError as error:
        raise Problem(
            409, "rerun_impossible", "Another version of the service wrote this job, so it cannot run again"
        ) from error


async def _rights_at(services: ApiServices, job: ExportJob, now: datetime) -> datetime:
    """Return when the owner last proved the rights of the job's request.

    Raises:
        Problem: that was too long ago.
    """
    permissions = SchedulePermissions.of(services.settings)
    rights_at = job.rights_at or job.created_at
    first = await _first_of(services, job)
    if first.schedule_id is not None:
        schedule = await services.schedule_reads.get(first.schedule_id, user_id=job.user_id)
        if schedule is None:
            raise _refused("The schedule of this job was deleted, and its rights with it")
        if (refusal := permissions.refusal(schedule, now)) is not None:
            raise Problem(403, refusal.code, str(refusal), field=refusal.field)
        # The refusal is about the rights that the schedule has now. The job can have had more.
        fewer_rows = job.scope == ALL and schedule.scope != ALL
        if fewer_rows or (job.claims and kept_claims(job.claims, schedule.claims or {}) != job.claims):
            raise Problem(
                403,
                "grant_lapsed",
                "The schedule of this job does not have all rights of the job any more. Only its owner can "
                "run the job again, with a token that has them",
            )
        ends = [moment for moment in (schedule.claims_until, schedule.all_rows_until) if moment is not None]
        rights_at = min([rights_at, *(moment - permissions.grant for moment in ends)])
    if rights_at + permissions.grant <= now:
        raise Problem(
            403,
            "grant_lapsed",
            f"The user of this job showed the rights for it more than {permissions.grant.days} days ago. "
            "Only this user can run it again",
        )
    return rights_at


async def _first_of(services: ApiServices, job: ExportJob) -> ExportJob:
    """Return the job whose rights ``job`` has: others have run it again, possibly through further jobs."""
    while job.rights_at is not None and job.rerun_of is not None:
        before = await services.job_queries.get(job.rerun_of)
        if before is None:
            break  # its record was removed
        job = before
    return job


def _refused(detail: str) -> Problem:
    return Problem(403, "scope_not_allowed", detail, field="scope")

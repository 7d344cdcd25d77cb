"""Calls about jobs: request, estimate, list, read and cancel."""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from api import audit_log, pagination
from api.auth.authenticator import CurrentUser, User
from api.auth.callers import can_see, claims_for
from api.errors import RETRY_SECONDS, Problem, not_found, problem_responses
from api.exact_bodies import ExactRoute
from api.jobs.cancellation import cancel_job
from api.jobs.estimates import estimate
from api.jobs.list_parameters import JobListParameters
from api.jobs.rerun import rerun_job
from api.jobs.schemas import (
    JOB_ENDED,
    JOB_RECORDED,
    Accepted,
    Estimate,
    IdempotencyKey,
    JobPage,
    JobView,
    Order,
    Prefer,
)
from api.jobs.submission import submit_request
from api.jobs.validation import dataset_for, require_scope, validated_event
from api.jobs.waiting import Waited, preferred_wait
from api.middleware.disconnect import cancel_on_disconnect, until_disconnect
from api.services import ApiServices, InjectedServices
from api.time_limits import since_moment, until_moment
from stream_app.jobs.job_queries import JobSearch
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import UNFINISHED, Status

router = APIRouter(prefix="/exports/jobs", tags=["jobs"], route_class=ExactRoute)

POLL_SECONDS = 1
SEARCH_SECONDS = 10.0
"""Time-out of a list of jobs. No index has all filters, and a search keeps a connection of its pool."""

MAX_WORDS = 10
"""Words of a search. Further words are ignored."""
_RETRY_AFTER = {"description": "Seconds to wait before the next call", "schema": {"type": "integer"}}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "ETag of the last response",
}


async def find_job_with_data(services: ApiServices, user: User, job_id: UUID) -> ExportJob:
    """Return the job if the user can see its data: filters, addresses and file.

    Raises:
        Problem: 404 if the user cannot see the job, 403 if the user can see only its status.
    """
    job = await find_job(services, user, job_id)
    if not user.can_see_data(job.user_id):
        raise Problem(403, "role_missing", "The data of other users' jobs needs the role exports:admin")
    return job


async def find_job(services: ApiServices, user: User, job_id: UUID) -> ExportJob:
    """Return the job if the user can see at least its status; :func:`view_for` removes the rest.

    Raises:
        Problem: 404 if the user cannot see the job.
    """
    job = await services.reader.get(job_id, user_id=user.status_owner)
    if job is None:
        raise not_found()
    audit_log.set_object("job", job_id, owner=job.user_id)
    return job


def view_for(services: ApiServices, user: User, job: ExportJob, now: datetime | None = None) -> JobView:
    """Return the job as this user can see it, at ``now`` or at the present time."""
    view = JobView.of(job, now or services.clock.now())
    return view if user.can_see_data(job.user_id) else view.without_data()


@router.post(
    "",
    operation_id="requestExport",
    status_code=202,
    response_model=Accepted,
    responses={
        200: JOB_ENDED,
        202: JOB_RECORDED,
        **problem_responses(400, 401, 403, 413, 422, 429, 500, 503),
    },
)
async def request_export(
    request: Request,
    order: Order,
    services: InjectedServices,
    user: CurrentUser,
    response: Response,
    idempotency_key: IdempotencyKey = None,
    prefer: Prefer = None,
) -> Accepted | Response:
    """Request an export.

    The request is checked against the dataset and recorded. The job starts when Kafka has its event.

    Roles and claims of the token decide what the export contains. A dataset or a column that is not for you
    does not exist in any response.

    A 503 with the code `in_doubt` means that it is not known whether the request was recorded. The response
    contains the id that the job would have.

    The file contains the rows of the token's user. A scope of the dataset exports the rows that belong to a
    claim of the token. Scope `all` exports the rows of all users and needs the role `exports:all`.

    With `Prefer: wait=N` the response comes when the job has ended, at the latest after N seconds (at most
    30): 200 with the job, or 202 if it has not ended. Without `Preference-Applied` it has waited for less:
    too many calls wait, a part is away, or the server stops.
    """
    job_id, status = await submit_request(services, user, order, idempotency_key)
    audit_log.set_object("job", job_id, owner=user.id)
    headers = {"Location": f"/exports/jobs/{job_id}"}
    seconds = preferred_wait(prefer or ())
    if seconds and not services.job_waits.is_full(user.id):
        request.state.begin_wait()
        wait = services.job_waits.until_ended(job_id, seconds, user_id=user.id)
        # The job is recorded. So the call has succeeded, also if its client does not wait any longer.
        waited = await until_disconnect(request, wait, Waited)
        if waited.is_whole:
            headers["Preference-Applied"] = f"wait={seconds}"
        if waited.job is not None:
            headers["Cache-Control"] = "no-store"
            return Response(waited.job.body, headers=headers, media_type="application/json")
    response.headers.update(headers)
    return Accepted(export_job_id=job_id, status=status)


@router.post(
    ":estimate",
    operation_id="estimateExport",
    response_model=Estimate,
    responses=problem_responses(400, 401, 403, 413, 422, 500, 503),
)
async def estimate_export(
    request: Request, order: Order, services: InjectedServices, user: CurrentUser
) -> Estimate:
    """Estimate the size of an export.

    Estimates rows and bytes in at most two seconds. It refuses the same requests as POST.

    The estimates of one user run one after the other. One that waits for more than two seconds ends with 503.

    Your own rows are counted up to a limit. Beyond it the response has `at_least`. For scope `all` the number
    of rows is the estimate of the database. The number of bytes is calculated from a small sample.
    """
    require_scope(user, order)
    dataset = dataset_for(services, user, order.export_type)
    claims = claims_for(user, dataset, services.datasets.destination(order.destination))
    _, wanted = validated_event(services, user.id, order, claims=claims)
    return await cancel_on_disconnect(request, estimate(services, wanted))


@router.get(
    "",
    operation_id="listExports",
    response_model=JobPage,
    responses=problem_responses(401, 403, 422, 500, 503),
)
async def list_exports(
    request: Request,
    services: InjectedServices,
    user: CurrentUser,
    wanted: Annotated[JobListParameters, Depends()],
) -> Response:
    """Your jobs, newest first.

    The role `exports:admin` lists the jobs of all users, and `exports:operate` the same without data.
    """
    owner = _listed_owner(user, wanted.user_id, wanted.name)
    audit_log.set_object("jobs", "all" if owner is None else "of", owner=owner)
    now = services.clock.now()
    listed = services.job_searches.list_newest(
        owner,
        status=wanted.status,
        export_type=wanted.export_type,
        code=wanted.code,
        name=wanted.name,
        search=_search(services, user, owner, wanted.q) if wanted.q else None,
        since=since_moment(wanted.since, now),
        until=until_moment(wanted.until, now),
        before=pagination.decode(wanted.cursor) if wanted.cursor else None,
        limit=wanted.limit + 1,
        now=now,
    )
    jobs = await cancel_on_disconnect(request, _in_time(listed, of_all=owner is None))
    shown, following = pagination.page_of(jobs, wanted.limit)
    page = JobPage.model_construct(
        jobs=[view_for(services, user, job, now) for job in shown], next_cursor=following
    )
    return Response(page.model_dump_json(), media_type="application/json")


def _listed_owner(user: User, requested_owner: str | None, name: str | None) -> str | None:
    """Return whose jobs ``user`` lists; ``None`` stands for all users.

    Args:
        user: who lists them.
        requested_owner: the user whose jobs the call lists, if it names one.
        name: the name that the jobs must have.

    Raises:
        Problem: 403, the user lacks a role.
    """
    if requested_owner is not None and requested_owner != user.id and not user.is_operator:
        raise Problem(
            403,
            "role_missing",
            "Listing the jobs of other users needs the role exports:admin or exports:operate",
            field="user_id",
        )
    owner = user.status_owner if requested_owner is None else requested_owner
    if name is not None and owner != user.id and not user.is_admin:
        raise Problem(
            403, "role_missing", "The names of other users' jobs need the role exports:admin", field="name"
        )
    return owner


async def _in_time(search: Awaitable[Sequence[ExportJob]], *, of_all: bool) -> Sequence[ExportJob]:
    """Return what a search finds in the jobs of one user, or of all users.

    Raises:
        Problem: 503, it takes longer than :data:`SEARCH_SECONDS`.
    """
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            return await search
    except TimeoutError as error:
        raise Problem(
            503,
            "search_too_slow",
            f"The jobs were not found within {SEARCH_SECONDS:g} s. Limit the time with since and until"
            f"{', or name a user with user_id' if of_all else ''}",
            field="since",
            headers={"Retry-After": str(RETRY_SECONDS)},
        ) from error


def _search(services: ApiServices, user: User, owner: str | None, q: str) -> JobSearch:
    """Return the search for the words in ``q``. Labels of datasets that the user cannot see find nothing."""
    datasets = [dataset for dataset in services.datasets.values() if can_see(user, dataset)]

    def labelled(word: str) -> list[str]:
        return [
            dataset.name
            for dataset in datasets
            if any(
                word.casefold() in label.casefold()
                for label in (dataset.label or "", *dataset.labels.values())
            )
        ]

    words = [(word, labelled(word)) for word in q.split()[:MAX_WORDS]]
    return JobSearch(words, with_names=user.is_admin or owner == user.id)


@router.get(
    "/{job_id}",
    operation_id="getExport",
    response_model=JobView,
    responses={
        200: {"headers": {"Retry-After": _RETRY_AFTER, "ETag": {"schema": {"type": "string"}}}},
        304: {"description": "The job has not changed since the response with that ETag"},
        **problem_responses(401, 404, 500, 503),
    },
    # Read by hand, because this call is more frequent than all others, and described here for OpenAPI.
    openapi_extra={"parameters": [_IF_NONE_MATCH]},
)
async def get_export(
    job_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    request: Request,
) -> Response:
    """The status of a job.

    The response has `Retry-After` while the job is unfinished. Send `If-None-Match` to poll cheaply.
    """
    job = await find_job(services, user, job_id)
    body = view_for(services, user, job).model_dump_json().encode()
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": "no-store"}
    if job.status in UNFINISHED:
        headers["Retry-After"] = str(POLL_SECONDS)
    condition = request.headers.get("If-None-Match")
    if condition is not None and _matches(condition, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@router.post(
    "/{job_id}:rerun",
    operation_id="rerunExport",
    status_code=202,
    response_model=Accepted,
    responses={202: JOB_RECORDED, **problem_responses(401, 403, 404, 409, 422, 429, 500, 503)},
)
async def rerun_export(
    job_id: UUID,
    services: InjectedServices,
    user: CurrentUser,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> Accepted:
    """Run a job again.

    Makes a new job with the same request and the same user. Its `rerun_of` is the id of this job.

    Relative dates such as `now-7d` count from now on. A run of a schedule keeps its window. The user of the
    job needs the rights for the request now. The roles `exports:operate` and `exports:admin` can run the
    jobs of other users again: the new job and its file belong to the user of the job. Rights that the user
    proved with a token (scope `all`, roles, claims) count for `EXPORTER_SCHEDULE_GRANT_DAYS`.
    """
    job = await find_job(services, user, job_id)
    new_id, status = await rerun_job(services, user, job, idempotency_key)
    response.headers["Location"] = f"/exports/jobs/{new_id}"
    return Accepted(export_job_id=new_id, status=status)


@router.delete(
    "/{job_id}",
    operation_id="cancelExport",
    status_code=202,
    response_model=Accepted,
    responses={
        202: {"description": "The cancellation is recorded"},
        **problem_responses(401, 403, 404, 500, 503),
    },
)
async def cancel_export(job_id: UUID, services: InjectedServices, user: CurrentUser) -> Accepted:
    """Cancel a job.

    A running job is stopped. The response has the status before the cancellation.
    """
    job = await find_job(services, user, job_id)
    await cancel_job(services, user, job)
    return Accepted(export_job_id=job_id, status=Status(job.status))


def _matches(condition: str, tag: str) -> bool:
    """Compare ETags weakly, as RFC 9110, section 13.1.2, requires for If-None-Match."""
    candidates = (part.strip().removeprefix("W/") for part in condition.split(","))
    return any(candidate in ("*", tag) for candidate in candidates)

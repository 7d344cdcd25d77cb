"""Submits jobs of requests over HTTP: commits the record, then publishes its event."""

from contextlib import suppress
from uuid import UUID

import structlog

from api.auth.authenticator import User
from api.auth.callers import claims_for
from api.errors import RETRY_SECONDS, Problem
from api.jobs.schemas import Order
from api.jobs.validation import check_against_table, dataset_for, require_scope, validated_event
from api.services import ApiServices
from stream_app.jobs.models import ExportJob
from stream_app.jobs.new_job import REQUEST_COLUMNS, NewJob, new_job
from stream_app.jobs.states import Status
from stream_app.jobs.submission import SubmitResult
from stream_app.observability import tracing
from streaming_exporter.errors import InDoubt
from streaming_exporter.events import Event

log = structlog.get_logger(__name__)
BUSY_SECONDS = 30


async def submit_request(
    services: ApiServices, user: User, order: Order, key: str | None
) -> tuple[UUID, Status]:
    """Submit a job and start to publish its event. The same ``key`` is the same job.

    Raises:
        Rejected: the request is invalid; the text names the field.
        Problem: the request is not allowed, a limit is reached, or it is not known whether it was recorded.
        Retryable: a part is unavailable. There is no record, unless an earlier call has made one.
    """
    require_scope(user, order)
    dataset = dataset_for(services, user, order.export_type)
    claims = claims_for(user, dataset, services.datasets.destination(order.destination))
    event, request = validated_event(services, user.id, order, key, claims=claims)
    job = new_job(event, request, now=services.clock.now())
    if key is not None and (known := await services.job_queries.get(event.job_id)) is not None:
        # The table can have changed since then, so the request is not checked again.
        return _require_same_request(known, job)
    await check_against_table(services, request)
    if await record_job(services, event, job):
        return event.job_id, Status.PENDING
    known = await services.job_queries.get(event.job_id)
    return (event.job_id, Status.PENDING) if known is None else _require_same_request(known, job)


async def record_job(services: ApiServices, event: Event, job: NewJob) -> bool:
    """Commit the job's row and start to publish its event; return whether the row is new.

    Raises:
        Problem: the user's limit is reached, or it is not known whether the row was committed.
        Retryable: a part is unavailable. There is no row.
    """
    result = await _record(services, job)
    if result is SubmitResult.TOO_MANY:
        raise too_many(services)
    if result is SubmitResult.KNOWN:
        return False
    with tracing.send_span(event) as span:
        services.relay.soon(tracing.with_trace_context(event, span))
    facts = {} if job.rerun_of is None else {"rerun_of": str(job.rerun_of)}
    log.info(
        "job.requested",
        job_id=str(job.id),
        user_id=job.user_id,
        dataset=job.export_type,
        format=job.format,
        **facts,
    )
    return True


async def _record(services: ApiServices, job: NewJob) -> SubmitResult:
    """Commit the job's row. If the answer of the database was lost, check whether the row exists.

    Raises:
        Problem: it is not known whether the row exists.
        Retryable: there is no row.
    """
    try:
        return await services.queue.admission.submit(job, user_limit=services.settings.user_pending_limit)
    except InDoubt as error:
        log.warning("job.in_doubt", job_id=str(job.id), error=str(error))
        with suppress(Exception):  # whatever it is, the row possibly exists
            if await services.job_queries.get(job.id) is not None:
                return SubmitResult.NEW
        raise in_doubt(job.id) from error


def too_many(services: ApiServices) -> Problem:
    """Return the problem of a user who has reached the limit of unfinished jobs."""
    limit = services.settings.user_pending_limit
    return Problem(
        429,
        "too_many_jobs",
        f"You have reached the limit of {limit} unfinished jobs. Wait for one to finish or cancel one",
        headers={"Retry-After": str(BUSY_SECONDS)},
    )


def in_doubt(job_id: UUID) -> Problem:
    """Return the problem of a request of which it is not known whether its job was recorded."""
    return Problem(
        503,
        InDoubt.code,
        f"The state database did not confirm the request, so it is not known whether job {job_id} was "
        f"recorded. Read /exports/jobs/{job_id} before you repeat the request, or repeat it with the same "
        "Idempotency-Key",
        headers={"Retry-After": str(RETRY_SECONDS), "Location": f"/exports/jobs/{job_id}"},
        export_job_id=job_id,
    )


def _require_same_request(known: ExportJob, job: NewJob) -> tuple[UUID, Status]:
    """Return the job of an earlier call with the same key, if that call had the same request.

    Raises:
        Problem: it had another request.
    """
    # The claims are not compared: they are facts about the user, not what was asked for.
    if any(getattr(known, name) != getattr(job, name) for name in REQUEST_COLUMNS if name != "claims"):
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another request. Send a new key with a new request",
            field="Idempotency-Key",
        )
    return known.id, Status(known.status)

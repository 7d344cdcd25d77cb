"""From an order over HTTP to a job: its record is committed, then its event is published from it."""

import asyncio
import json
from contextlib import suppress
from uuid import UUID, uuid4, uuid5

import structlog
from pydantic_core import PydanticSerializationError

from api.auth.authenticator import User
from api.errors import RETRY_SECONDS, Problem
from api.jobs.schemas import Order
from api.services import SOURCE, ApiServices
from stream_app.exports.catalog import SourceTable
from stream_app.exports.compression import compression_for
from stream_app.exports.query import row_query
from stream_app.exports.relative_dates import resolve_request
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from stream_app.jobs.submission import REQUEST_COLUMNS, NewJob, SubmitResult, new_job
from stream_app.observability import tracing
from streaming_exporter.errors import InDoubt, Rejected, Retryable, Unreadable
from streaming_exporter.events import Event, ExportRequest, decode, request_event

log = structlog.get_logger(__name__)

IDEMPOTENCY = UUID("6f0a5a0e-6f2c-4c3b-9a43-2f1c0f0b7a51")
"""Namespace of the ids of jobs that were asked for with an ``Idempotency-Key``."""
BUSY_SECONDS = 30


async def place(services: ApiServices, user: User, order: Order, key: str | None) -> tuple[UUID, Status]:
    """Record the order, and have it published; with the same ``key`` again it is the same job.

    Raises:
        Rejected: the order can never be honoured; the text names the field.
        Problem: it is not allowed, not now, or whether it was taken is not known.
        Retryable: a part is away. Then there is no record, unless an earlier call made one.
    """
    require_scope(user, order)
    event, request = validated_event(services, user.id, order, key)
    job = new_job(event, request, now=services.clock.now())
    if key is not None and (known := await services.records.get(event.job_id)) is not None:
        return _same(known, job)  # whatever has become of the table since
    await check_against_table(services, request)
    result = await _record(services, job)
    if result is SubmitResult.TOO_MANY:
        raise too_many(services)
    if result is SubmitResult.KNOWN:
        known = await services.records.get(event.job_id)
        if known is not None:
            return _same(known, job)
    with tracing.send_span(event) as span:
        services.relay.soon(tracing.with_trace_context(event, span))
    log.info(
        "job.requested",
        job_id=str(event.job_id),
        user_id=user.id,
        dataset=order.export_type,
        format=order.format,
    )
    return event.job_id, Status.PENDING


async def _record(services: ApiServices, job: NewJob) -> SubmitResult:
    """Commit the job's row; where the database's answer was lost, see whether it is there.

    Raises:
        Problem: that cannot be seen either.
        Retryable: there is no record.
    """
    try:
        return await services.store.submit(job, user_limit=services.settings.user_pending_limit)
    except InDoubt as error:
        log.warning("job.in_doubt", job_id=str(job.id), error=str(error))
        with suppress(Retryable):
            if await services.records.get(job.id) is not None:
                return SubmitResult.NEW
        raise in_doubt(job.id) from error


def too_many(services: ApiServices) -> Problem:
    """A user's unfinished jobs are as many as they may be."""
    limit = services.settings.user_pending_limit
    return Problem(
        429,
        "too_many_jobs",
        f"There may be {limit} unfinished jobs of one user; wait for one to end, or cancel one",
        headers={"Retry-After": str(BUSY_SECONDS)},
    )


def in_doubt(job_id: UUID) -> Problem:
    """Whether a job was recorded is not known, and its id is all that can be said."""
    return Problem(
        503,
        InDoubt.code,
        f"The state database did not confirm the order; it may have been taken, as job {job_id}. "
        f"Ask for /exports/jobs/{job_id} before you send it again, or send it again with the same "
        "Idempotency-Key",
        headers={"Retry-After": str(RETRY_SECONDS), "Location": f"/exports/jobs/{job_id}"},
        export_job_id=job_id,
    )


def require_scope(user: User, order: Order) -> None:
    """Return if the user's roles allow the scope of the order.

    Raises:
        Problem: scope ``all`` without the role for it.
    """
    if order.scope == "all" and not user.can_export_all:
        raise Problem(403, "scope_not_allowed", "Scope all needs the role exports:all", field="scope")


def validated_event(
    services: ApiServices, user_id: str, order: Order, key: str | None = None
) -> tuple[Event, ExportRequest]:
    """Return the request event of an order, and its data after validation.

    Roles are not checked here: see :func:`require_scope`.

    Args:
        services: what the calls work with.
        user_id: whose export it is.
        order: the body of the call.
        key: the ``Idempotency-Key``.

    Raises:
        Rejected: the request is invalid, or its text cannot be encoded. The text names the field.
    """
    job_id = uuid4() if key is None else uuid5(IDEMPOTENCY, f"{len(user_id)}:{user_id}:{key}")
    try:
        json.dumps(order.filters, allow_nan=False)
    except ValueError as error:
        raise Rejected("NaN and infinity are not JSON", code="invalid_number", field="filters") from error
    try:
        data = {"user_id": user_id, **order.model_dump(mode="json", exclude_unset=True)}
        request = services.validator.validate(data)
        event = request_event(
            request, job_id=job_id, source=SOURCE, traceparent=tracing.current_span().traceparent
        )
        decode(event.encode())  # of the encoding alone: consumers must be able to read it
    except (PydanticSerializationError, UnicodeError) as error:
        raise Rejected("a text in the body is not valid Unicode", code="invalid_text") from error
    except Unreadable as error:
        raise Rejected(str(error), code="invalid_text") from error
    return event, request


async def check_against_table(services: ApiServices, request: ExportRequest) -> None:
    """Columns, filters and compression, while somebody waits to be told."""
    compression_for(request.options.compression, services.formats[request.format])

    async def check_table(table: SourceTable) -> None:
        wanted = resolve_request(request, table.all_columns, services.clock.now())
        await asyncio.to_thread(row_query, table, wanted)  # a filter of many values takes its time

    await services.catalog.use(services.datasets[request.export_type], check_table)


def _same(known: ExportJob, job: NewJob) -> tuple[UUID, Status]:
    if any(getattr(known, name) != getattr(job, name) for name in REQUEST_COLUMNS):
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another order; send a new key with a new order",
            field="Idempotency-Key",
        )
    return known.id, Status(known.status)

"""From an order over HTTP to a job that is recorded and published in one step."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4, uuid5

import structlog
from pydantic_core import PydanticSerializationError

from api.auth import User
from api.models import Order
from api.problems import Problem
from api.services import SOURCE, Services
from stream_app import tracing
from stream_app.errors import Rejected, Unreadable
from stream_app.events import Event, ExportRequest, decode, request_event
from stream_app.exports.catalog import Table
from stream_app.exports.compression import compression_for
from stream_app.exports.statement import rows_of
from stream_app.jobs.admission import check, job_row
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from stream_app.schedules.relative import resolved

log = structlog.get_logger(__name__)

IDEMPOTENCY = UUID("6f0a5a0e-6f2c-4c3b-9a43-2f1c0f0b7a51")
"""Namespace of the ids of jobs that were asked for with an ``Idempotency-Key``."""
BUSY_SECONDS = 30

WANTED = (
    "user_id",
    "export_type",
    "format",
    "filters",
    "columns",
    "options",
    "scope",
    "recipients",
    "webhook",
)
"""What two orders must agree in to be the same."""


async def place(services: Services, user: User, order: Order, key: str | None) -> tuple[UUID, Status]:
    """Record and publish the order; with the same ``key`` again it is the same job.

    Raises:
        Rejected: the order can never be honoured; the text names the field.
        Problem: it is not allowed, or not now.
        Retryable: a part is away. Then there is no record, unless an earlier call made one.
    """
    event = event_of(services, user, order, key)
    row = job_row(
        event,
        now=datetime.now(UTC),
        formats=services.formats,
        datasets=services.datasets,
        addressing=services.addressing,
    )
    if key is not None and (known := await services.records.get(event.job_id)) is not None:
        return _same(known, row)  # whatever has become of the table since
    await check_against_table(services, ExportRequest.parse(event.data))
    limit = services.settings.user_pending_limit
    if await services.records.unfinished(user.id) >= limit:
        raise Problem(
            429,
            "too_many_jobs",
            f"You may have {limit} unfinished jobs; wait for one to end, or cancel one",
            headers={"Retry-After": str(BUSY_SECONDS)},
        )
    if not await _record_and_publish(services, event, row):
        known = await services.records.get(event.job_id)
        if known is not None:
            return _same(known, row)
    log.info(
        "job.requested",
        job_id=str(event.job_id),
        user_id=user.id,
        dataset=order.export_type,
        format=order.format,
    )
    return event.job_id, Status.PENDING


async def _record_and_publish(services: Services, event: Event, row: dict[str, Any]) -> bool:
    """Returns whether the job is new.

    The record is committed once Kafka has the event: no job without an event, and none that its user
    cannot see. A worker that is quicker waits for the commit, since it inserts the same id.
    """
    async with services.store.transaction() as connection:
        is_new = bool(await services.store.admit(connection, [row]))
        if is_new:
            with tracing.sending(event) as span:
                await services.publisher.publish(tracing.carrying(event, span))
    return is_new


def event_of(services: Services, user: User, order: Order, key: str | None) -> Event:
    """The request event, such that every reader can read it."""
    if order.scope == "all" and not user.may_export_all:
        raise Problem(403, "scope_not_allowed", "Scope all needs the role exports:all", field="scope")
    job_id = uuid4() if key is None else uuid5(IDEMPOTENCY, f"{len(user.id)}:{user.id}:{key}")
    try:
        json.dumps(order.filters, allow_nan=False)
    except ValueError as error:
        raise Rejected("NaN and infinity are not JSON", code="invalid_number", field="filters") from error
    try:
        data = {"user_id": user.id, **order.model_dump(mode="json", exclude_unset=True)}
        request = check(
            data,
            formats=services.formats,
            datasets=services.datasets,
            addressing=services.addressing,
        )
        event = request_event(
            request, job_id=job_id, source=SOURCE, traceparent=tracing.current().traceparent
        )
        decode(event.encode())
    except (PydanticSerializationError, UnicodeError) as error:
        raise Rejected("a text in the body is not valid Unicode", code="invalid_text") from error
    except Unreadable as error:
        raise Rejected(str(error), code="invalid_text") from error
    return event


async def check_against_table(services: Services, request: ExportRequest) -> None:
    """Columns, filters and compression, while somebody waits to be told."""
    compression_for(request.options.compression, services.formats[request.format])

    async def check_table(table: Table) -> None:
        wanted = resolved(request, table.every, datetime.now(UTC))
        await asyncio.to_thread(rows_of, table, wanted)  # a filter of many values takes its time

    await services.catalog.use(services.datasets[request.export_type], check_table)


def _same(known: ExportJob, row: dict[str, Any]) -> tuple[UUID, Status]:
    if any(getattr(known, name) != row[name] for name in WANTED):
        raise Problem(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used for another order; send a new key with a new order",
            field="Idempotency-Key",
        )
    return known.id, Status(known.status)

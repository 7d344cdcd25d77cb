"""Inserts the records of jobs, with a limit of unfinished jobs of a user or without one.

All four ways to ask for an export use it: events on ``exports.requests``, ``POST /exports/jobs``, the
scheduler, and runs of a schedule beside its calendar.
"""

from collections.abc import Sequence
from enum import Enum
from hashlib import blake2b
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.statements import Record
from stream_app.jobs.models import ExportJob
from stream_app.jobs.new_job import COLUMNS, NewJob, valid_name
from stream_app.jobs.queue_sql import INDEX_ORDER, MARK_ADMITTED, SUBMIT_LOCK, insert_jobs
from stream_app.jobs.states import Status
from streaming_exporter.events import Event, LifecycleData

_INSERT = {
    (admitted, limited): insert_jobs(COLUMNS, admitted=admitted, limited=limited)
    for admitted in (False, True)
    for limited in (False, True)
}


async def submit(
    connection: AsyncConnection, jobs: Sequence[NewJob], *, user_limit: int | None = None
) -> list[LifecycleData]:
    """Insert jobs: either all of them admitted, or none. A job that is on record stays as it is.

    An admitted job also admits the unadmitted record of the same job. On commit idle workers are notified of
    admitted jobs.

    Args:
        connection: one in a transaction, or one with autocommit.
        jobs: the jobs.
        user_limit: insert nothing if the user of the job has this many unfinished jobs. The transaction
            must hold the lock of :func:`submit_lock_sql`.

    Returns:
        The ``export.accepted`` data of the jobs that were inserted or admitted.

    Raises:
        Locked: another transaction holds the record of one of the jobs.
    """
    if not jobs:
        return []
    values: dict[str, Any] = {"jobs": to_json([job.row() for job in jobs]).decode()}
    if user_limit is not None:
        values |= {"user_id": jobs[0].user_id, "user_limit": user_limit}
    statement = _INSERT[jobs[0].admitted_at is not None, user_limit is not None]
    return [accepted_data_of_row(row) for row in await statement.fetch(connection, values)]


def accepted_data_of_row(row: Record) -> LifecycleData:
    """Return the data of the ``export.accepted`` event of a job's row."""
    return LifecycleData(
        job_id=row.id,
        user_id=row.user_id,
        export_type=row.export_type,
        format=row.format,
        name=row.name,
        status=Status.PENDING,
        traceparent=row.traceparent,
    )


async def mark_admitted(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Admit jobs, once Kafka has their ``export.accepted``: from then on they can be claimed."""
    await MARK_ADMITTED.fetch(connection, {"ids": list(ids)})


class SubmitResult(Enum):
    """The result of submitting a job with a limit: inserted, known before, or above the limit."""

    NEW = "new"
    KNOWN = "known"
    TOO_MANY = "too_many"


async def submit_within_limit(connection: AsyncConnection, job: NewJob, *, user_limit: int) -> SubmitResult:
    """:func:`submit` an unadmitted job, unless its user has ``user_limit`` unfinished jobs.

    The transaction must hold the lock of :func:`submit_lock_sql`.
    """
    if await submit(connection, [job], user_limit=user_limit):
        return SubmitResult.NEW
    is_known = select(ExportJob.id).where(ExportJob.id == job.id)
    return SubmitResult.KNOWN if await connection.scalar(is_known) is not None else SubmitResult.TOO_MANY


def submit_lock_sql(user_id: str) -> str:
    """Return the SQL that locks the user's submissions until the transaction ends.

    Under this lock the number of the user's unfinished jobs, or of their schedules, is compared with a limit.
    The SQL also makes the settings of the transaction that this needs.
    """
    number = int.from_bytes(
        blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=4).digest(), signed=True
    )
    return f"SELECT pg_advisory_xact_lock({SUBMIT_LOCK}, {number}), {INDEX_ORDER};"


def accepted_data_of_event(event: Event) -> LifecycleData:
    """Return the data of the ``export.accepted`` event of a request."""
    return LifecycleData(
        job_id=event.job_id,
        **event.identity.model_dump(),
        name=valid_name(event.data.get("name")),
        status=Status.PENDING,
        traceparent=event.traceparent,
    )

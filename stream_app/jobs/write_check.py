"""Checks that the state database accepts the writes of messages: it writes and deletes a trial job."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from sqlalchemy import delete

from stream_app.jobs.models import ExportJob
from stream_app.jobs.projector import apply_events
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.submission import submit
from streaming_exporter.events import RequestIdentity, lifecycle_event, request_event

TRIAL_REQUEST = RequestIdentity(user_id="exporter", export_type="trial", format="none")


async def write_trial_job(queue: JobQueue) -> None:
    """Admit, end and delete a trial job in one transaction, and commit it.

    No other transaction ever sees the job.

    Raises:
        Retryable: the database is away.
        Exception: any other error of these writes.
    """
    event = request_event(TRIAL_REQUEST, job_id=uuid4(), source="/exporter/trial")
    now = datetime.now(UTC)
    job = replace(RequestValidator(formats=(), datasets={}).job(event, now=now), admitted_at=now)
    assert job.outcome is not None  # noqa: S101 - there is no dataset
    async with queue.transaction() as connection:
        await submit(connection, [job])
        ended = await apply_events(connection, [lifecycle_event(EVENT_OF[Status.FAILED], job.outcome)])
        await connection.execute(delete(ExportJob).where(ExportJob.id == event.job_id))
    if not ended:
        raise RuntimeError("a job that was admitted could not be ended")

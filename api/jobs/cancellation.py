"""Cancels one job."""

from uuid import UUID

from api.auth.authenticator import User
from api.errors import Problem
from api.services import SOURCE, ApiServices
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.observability import tracing
from streaming_exporter.events import cancel_event


async def cancel_job(services: ApiServices, user: User, job: ExportJob) -> None:
    """Cancel a job, and remove its file if it has one.

    A user who cannot see the data of the job cannot remove its file, also if the job ends after the read.

    Raises:
        Problem: 403, the job has ended, and the user cannot see its data.
        Retryable: the state database is away, or another transaction holds the job.
    """
    if user.can_see_data(job.user_id):
        async with services.queue.transaction() as connection:
            await services.queue.cancellations.cancel(connection, job.id)
        publish_cancellation(services, job.id, by=user.id)
        return
    is_cancelled = job.status in UNFINISHED and await cancel_unfinished(services, job.id, by=user.id)
    if not is_cancelled and not await _was_cancelled(services, job.id):
        raise Problem(403, "role_missing", "Removing the files of other users needs the role exports:admin")


async def cancel_unfinished(services: ApiServices, job_id: UUID, *, by: str) -> bool:
    """Cancel a job that has not ended; return whether it had not. A job that has ended keeps its result.

    Only a job that no worker runs gets an event: it has ended as cancelled. A running one is stopped by its
    worker. An event would be handled later, when the job can be completed, and remove its file.

    Raises:
        Retryable: the state database is away, or another transaction holds the job.
    """
    async with services.queue.transaction() as connection:
        found = await services.queue.cancellations.cancel_unfinished(connection, job_id)
    if found is not None and found.is_outcome_stored:
        publish_cancellation(services, job_id, by=by)
    return found is not None


def publish_cancellation(services: ApiServices, job_id: UUID, *, by: str) -> None:
    """Start to publish that the user ``by`` has cancelled a job."""
    event = cancel_event(job_id, source=SOURCE, by=by)
    with tracing.send_span(event) as span:
        services.relay.soon(tracing.with_trace_context(event, span))


async def _was_cancelled(services: ApiServices, job_id: UUID) -> bool:
    """Return whether the job has ended as cancelled, also if no worker has applied that yet.

    So a call that is repeated because its answer was lost has the same answer.
    """
    job = await services.job_queries.get(job_id)
    if job is None:
        return False
    if job.status in UNFINISHED:
        return job.outcome is not None and job.outcome.get("status") == Status.CANCELLED
    return job.status == Status.CANCELLED

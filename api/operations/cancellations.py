"""Cancels all unfinished jobs of a user."""

from uuid import UUID

import structlog

from api.services import SOURCE, ApiServices
from streaming_exporter.events import cancel_event

log = structlog.get_logger(__name__)


async def cancel_all(services: ApiServices, user_id: str, *, by: str) -> list[UUID]:
    """Cancel the unfinished jobs of ``user_id``; return their ids.

    A job that ends in the meantime keeps its result. So only jobs that no worker runs get an event: they
    have ended as cancelled. Running ones are stopped by their worker.

    Raises:
        Retryable: the state database is away. The jobs before the failure are cancelled.
    """
    cancelled = []
    for job_id in await services.statistics.unfinished_of(user_id):
        async with services.store.transaction() as connection:
            found = await services.store.unheld.cancel_unfinished(connection, job_id)
        if found is None:
            continue
        cancelled.append(job_id)
        if found.has_ended:
            services.relay.soon(cancel_event(job_id, source=SOURCE, by=by))
    log.info("jobs.cancelled", user_id=user_id, by=by, jobs=len(cancelled))
    return cancelled

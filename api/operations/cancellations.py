"""Cancels all unfinished jobs of a user."""

import time
from uuid import UUID

import structlog

from api.errors import RETRY_SECONDS, Problem
from api.services import SOURCE, ApiServices
from streaming_exporter.errors import Locked, Retryable
from streaming_exporter.events import cancel_event

log = structlog.get_logger(__name__)

SECONDS = 20.0
"""Longest time of one call, in which other jobs wait. A repeated call continues."""


async def cancel_all(services: ApiServices, user_id: str, *, by: str) -> list[UUID]:
    """Cancel the unfinished jobs of ``user_id``; return their ids.

    A job that ends in the meantime keeps its result. So only jobs that no worker runs get an event: they
    have ended as cancelled. Running ones are stopped by their worker.

    Raises:
        Retryable: the state database is away.
        Problem: some jobs are not cancelled: another transaction holds them, the state database went away,
            or the time is over. The other jobs are cancelled.
    """
    cancelled: list[UUID] = []
    tried = 0
    failure: Retryable | None = None
    until = time.monotonic() + SECONDS
    jobs = await services.statistics.unfinished_of(user_id)
    for job_id in jobs:
        if time.monotonic() > until:
            break
        try:
            async with services.store.transaction() as connection:
                found = await services.store.unheld.cancel_unfinished(connection, job_id)
        except Locked as error:
            failure = error
            continue
        except Retryable as error:
            failure = error
            break
        tried += 1
        if found is None:
            continue
        cancelled.append(job_id)
        if found.has_ended:
            services.relay.soon(cancel_event(job_id, source=SOURCE, by=by))
    log.info("jobs.cancelled", user_id=user_id, by=by, jobs=len(cancelled), left=len(jobs) - tried)
    if tried < len(jobs):
        raise Problem(
            503,
            "cancellation_incomplete",
            f"{len(cancelled):,} jobs are cancelled. It is not known of {len(jobs) - tried:,} more jobs: "
            "repeat the call",
            headers={"Retry-After": str(RETRY_SECONDS)},
        ) from failure
    return cancelled

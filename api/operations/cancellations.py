"""Cancels all unfinished jobs of a user."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from api.errors import RETRY_SECONDS, Problem
from api.jobs.cancellation import cancel_unfinished
from api.services import ApiServices
from streaming_exporter.errors import Locked, Retryable

log = structlog.get_logger(__name__)

SECONDS = 20.0
"""Longest time of one call, in which other jobs wait. A repeated call continues."""

AT_A_TIME = 4
"""Transactions that cancel at the same time. Each waits for the disk, and for a lock if it has to."""


async def cancel_all(services: ApiServices, user_id: str, *, by: str) -> list[UUID]:
    """Cancel the unfinished jobs of ``user_id``; return their ids.

    A job that ends in the meantime keeps its result. So only jobs that no worker runs get an event: they
    have ended as cancelled. Running ones are stopped by their worker.

    Raises:
        Retryable: the state database is away.
        Problem: some jobs are not cancelled: another transaction holds them, the state database went away,
            or the time is over. The other jobs are cancelled.
    """
    jobs = await services.statistics.unfinished_of(user_id)
    run = _Cancellations(services, by, iter(jobs), time.monotonic() + SECONDS)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_A_TIME, len(jobs))):
            group.create_task(run.work())
    left = len(jobs) - run.tried
    log.info("jobs.cancelled", user_id=user_id, by=by, jobs=len(run.cancelled), left=left)
    if left:
        raise Problem(
            503,
            "cancellation_incomplete",
            f"{len(run.cancelled):,} jobs are cancelled. It is not known of {left:,} more jobs: "
            "repeat the call",
            headers={"Retry-After": str(RETRY_SECONDS)},
        ) from run.failure
    return run.cancelled


@dataclass(slots=True)
class _Cancellations:
    """Cancels jobs, several at a time, until ``until`` by the monotonic clock."""

    services: ApiServices
    by: str
    jobs: Iterator[UUID]
    until: float
    cancelled: list[UUID] = field(default_factory=list)
    tried: int = 0
    failure: Retryable | None = None
    is_away: bool = False

    async def work(self) -> None:
        """Cancel the jobs that are left. A job that another transaction holds is left out."""
        for job_id in self.jobs:
            if self.is_away or time.monotonic() > self.until:
                return
            try:
                await self._cancel(job_id)
            except Locked as error:
                self.failure = error
            except Retryable as error:
                self.failure, self.is_away = error, True

    async def _cancel(self, job_id: UUID) -> None:
        is_cancelled = await cancel_unfinished(self.services, job_id, by=self.by)
        self.tried += 1
        if is_cancelled:
            self.cancelled.append(job_id)

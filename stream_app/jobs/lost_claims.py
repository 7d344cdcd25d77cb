"""Releases the jobs and parts of a claim whose commit was not confirmed."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from stream_app.db.listener import WAKE_CHANNEL
from stream_app.db.statements import Statement
from stream_app.jobs.claim import Claim
from stream_app.jobs.part_claim import PartClaim
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.queue_sql import CLAIMS
from streaming_exporter.errors import InDoubt

log = structlog.get_logger(__name__)

MARGIN = timedelta(seconds=5)
"""What was claimed up to this time before the first lost answer counts as lost, too, if it does not run."""

_LOCK = f"SELECT pg_advisory_xact_lock({CLAIMS})"

# In a container the process before had the same name. What it has left must count as failed, because it can
# have ended the process. So only what was claimed since the first lost answer is handed back.
_RELEASE_LOST = Statement(
    f"""
    WITH since AS (
        SELECT clock_timestamp() - CAST(:age AS interval) AS time
    ), job_back AS (
        UPDATE export_jobs AS job
        SET status = CASE WHEN job.cancel_requested_at IS NULL THEN 'pending' ELSE job.status END,
            worker = NULL, lease_until = CASE WHEN job.cancel_requested_at IS NOT NULL THEN now() END,
            row_count = NULL
        FROM since
        WHERE job.status = 'processing' AND job.outcome IS NULL AND job.worker = :worker
            AND job.started_at >= since.time
            AND NOT EXISTS (
                SELECT FROM unnest(CAST(:ids AS uuid[]), CAST(:attempts AS int[])) AS held (id, attempt)
                WHERE held.id = job.id AND held.attempt = job.attempt
            )
        RETURNING job.id
    ), part_back AS (
        UPDATE export_parts AS part
        SET status = 'pending', worker = NULL, lease_until = NULL, row_count = NULL
        FROM since
        WHERE part.status = 'processing' AND part.worker = :worker
            AND part.lease_until >= since.time + CAST(:lease AS interval)
            AND NOT EXISTS (
                SELECT FROM unnest(
                    CAST(:part_ids AS uuid[]), CAST(:plans AS int[]), CAST(:numbers AS int[]),
                    CAST(:part_attempts AS int[])
                ) AS held (job_id, attempt, number, part_attempt)
                WHERE held.job_id = part.job_id AND held.attempt = part.attempt
                    AND held.number = part.number AND held.part_attempt = part.part_attempt
            )
        RETURNING part.job_id
    )
    SELECT total.*, CASE WHEN total.jobs + total.parts > 0 THEN pg_notify('{WAKE_CHANNEL}', '')::text END
    FROM (SELECT (SELECT count(*) FROM job_back) AS jobs, (SELECT count(*) FROM part_back) AS parts) AS total
    """
)
"""Returns how many jobs and parts were released. The lease of a job to be cancelled expires."""


@dataclass(slots=True)
class LostClaims:
    """Releases the jobs and parts of claims whose commits were not confirmed.

    The worker does not know that it has claimed them. No failure is counted: nothing has run.

    Attributes:
        queue: the queue of the claims.
        worker: the name of the worker.
    """

    queue: JobQueue
    worker: str
    _in_doubt_since: float | None = field(default=None, init=False)
    """The begin of the first claim that is in doubt."""

    @property
    def is_in_doubt(self) -> bool:
        """Whether a claim is in doubt."""
        return self._in_doubt_since is not None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Notice whether the claim of the block is in doubt. Its error is raised."""
        began = time.monotonic()
        try:
            yield
        except (InDoubt, asyncio.CancelledError):
            if self._in_doubt_since is None:
                self._in_doubt_since = began
            raise

    async def release_lost(self, running: Iterable[Claim]) -> None:
        """Set what was claimed and does not run here back to ``pending``, if a claim is in doubt.

        A claim has the lock of claims until its commit is visible, and so has this transaction: no earlier
        claim can take effect after it. No claim of this worker must begin meanwhile.

        Args:
            running: all claims that this worker knows.

        Raises:
            Retryable: the database is away, or another claim has the lock. It must be called again.
        """
        if self._in_doubt_since is None:
            return
        known = list(running)
        parts = [claim for claim in known if isinstance(claim, PartClaim)]
        jobs = [claim for claim in known if not isinstance(claim, PartClaim)]
        values = {
            "worker": self.worker,
            "lease": self.queue.lease,
            "ids": [claim.job_id for claim in jobs],
            "attempts": [claim.attempt for claim in jobs],
            "part_ids": [claim.job_id for claim in parts],
            "plans": [claim.attempt for claim in parts],
            "numbers": [claim.number for claim in parts],
            "part_attempts": [claim.part_attempt for claim in parts],
        }
        async with self.queue.transaction(_LOCK) as connection:
            age = timedelta(seconds=time.monotonic() - self._in_doubt_since) + MARGIN
            (found,) = await _RELEASE_LOST.fetch(connection, values | {"age": age})
        self._in_doubt_since = None
        log.warning("claim.handed_back", jobs=found.jobs, parts=found.parts)

"""Stores the outcomes of jobs that no attempt holds: of abandoned and of expired ones."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy import Row, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.engine import Connections, autocommit_connection, transaction
from stream_app.db.rows import each_readable
from stream_app.db.subqueries import any_once
from stream_app.jobs.models import ExportJob
from stream_app.jobs.queue_sql import ABANDONED
from stream_app.jobs.states import Status
from stream_app.jobs.stored_outcomes import LockedJob, store_outcome, stored_outcome
from streaming_exporter.events import JobError, LifecycleData

log = structlog.get_logger(__name__)


class UnclaimedJobs:
    """Ends jobs whose lease or whose file has expired, and returns outcomes that are not applied.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    def __init__(self, connections: Connections, *, lease: timedelta, max_attempts: int) -> None:
        """Prepare the statements.

        Args:
            connections: the result of :func:`~stream_app.db.engine.autocommitting`, or connections of it.
            lease: the time after which an outcome that is not applied is published again.
            max_attempts: the number of failed attempts after which a job has failed.
        """
        self._connections = connections
        self._lease = lease
        self._max_attempts = max_attempts

    def _connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return autocommit_connection(self._connections)

    async def end_exhausted(self) -> list[LifecycleData]:
        """End abandoned jobs (their lease has expired) that must not be tried again; return the outcomes.

        These are jobs that were cancelled, and jobs that have used up their attempts.
        """
        async with transaction(self._connections) as connection:
            rows = (await connection.execute(ABANDONED, {"max_attempts": self._max_attempts})).all()
            return await self._store_each(connection, rows, self._end_abandoned)

    async def _end_abandoned(self, connection: AsyncConnection, job: LockedJob) -> LifecycleData:
        known = {"started_at": job.started_at, "completed_at": job.now}
        if job.cancel_requested_at is not None:
            return await store_outcome(connection, job, Status.CANCELLED, lease=self._lease, **known)
        error = JobError(
            code="worker_lost",
            message=f"The export was interrupted {job.failures + 1} times and is not tried again; "
            "request it anew, with fewer rows if it is very large",
        )
        return await store_outcome(connection, job, Status.FAILED, error=error, lease=self._lease, **known)

    async def expire_files(self, limit: int = 100) -> list[LifecycleData]:
        """Store the expiry of completed jobs whose file has expired.

        Return the outcomes. Remove the files before publishing them.
        """
        async with transaction(self._connections) as connection:
            rows = await connection.execute(
                select(ExportJob.__table__, func.now().label("now"))
                .where(
                    ExportJob.status == Status.COMPLETED,
                    ExportJob.outcome.is_(None),
                    ExportJob.expires_at < func.now(),
                )
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            return await self._store_each(connection, rows.all(), self._expire)

    async def _expire(self, connection: AsyncConnection, job: LockedJob) -> LifecycleData:
        times = {"completed_at": job.completed_at, "expires_at": job.expires_at}
        return await store_outcome(
            connection, job, Status.EXPIRED, lease=self._lease, key=job.file_path, **times
        )

    @staticmethod
    async def _store_each(
        connection: AsyncConnection,
        rows: Sequence[Row[Any]],
        end: Callable[[AsyncConnection, LockedJob], Awaitable[LifecycleData]],
    ) -> list[LifecycleData]:
        """End the jobs row by row. A row of which no outcome can be made is logged and skipped."""
        outcomes = []
        for row in rows:
            try:
                outcomes.append(await end(connection, LockedJob.of(row)))
            except ValidationError as error:
                log.warning("job.seal_failed", job_id=str(row.id), error=str(error))
        return outcomes

    async def take_unpublished(self, limit: int = 100) -> list[LifecycleData]:
        """Return outcomes that were stored a lease ago and are not applied yet, to publish them again.

        Expired jobs come last: files that cannot be removed must not delay other outcomes.
        """
        waiting = (
            select(ExportJob.id)
            .where(ExportJob.outcome.is_not(None), ExportJob.lease_until < func.now())
            .order_by(ExportJob.outcome["status"].as_string() == Status.EXPIRED)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(ExportJob)
            .where(ExportJob.id == any_once(waiting))
            .values(lease_until=func.now() + self._lease)
            .returning(ExportJob.id, ExportJob.outcome, ExportJob.traceparent)
        )
        async with self._connect() as connection:
            rows = (await connection.execute(statement)).all()
        return list(each_readable(rows, stored_outcome))

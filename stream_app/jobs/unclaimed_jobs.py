"""Ends jobs that no attempt holds: cancelled, abandoned and expired ones."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy import ARRAY, Row, Select, Uuid, and_, any_, delete, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.engine import Connections, autocommit_connection, transaction
from stream_app.db.listener import WAKE_CHANNEL
from stream_app.db.rows import each_readable
from stream_app.jobs.models import EarlyCancellation, ExportJob
from stream_app.jobs.queue_sql import ABANDONED, CANCELLED_EARLY
from stream_app.jobs.states import UNFINISHED, Status
from streaming_exporter.events import JobError, LifecycleData

log = structlog.get_logger(__name__)

EARLY_CANCELLATIONS_KEPT = timedelta(days=7)

EARLY_CANCELLATIONS_RACE = timedelta(minutes=10)
"""How long a cancellation and its request can miss each other. Later the request finds the cancellation."""

CANCELLATION_BATCH = 200
"""How many early cancellations one statement reads or deletes."""


@dataclass(frozen=True, slots=True)
class LockedJob:
    """The columns of a locked row that decide how its job ends.

    ``now`` is the time by the database's clock.
    """

    id: UUID
    user_id: str
    export_type: str
    format: str
    name: str | None
    status: str
    attempt: int
    failures: int
    traceparent: str | None
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    cancel_requested_at: datetime | None
    file_path: str | None
    outcome: dict[str, Any] | None
    now: datetime

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Return the job of a row that has these columns, among others."""
        return cls(**{name: row._mapping[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The cancellation of a job.

    ``has_ended``: the job has ended as cancelled. Otherwise a worker runs it and stops it soon.
    """

    has_ended: bool


class UnclaimedJobs:
    """Cancels jobs, and ends those whose lease or whose file has expired.

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

    async def cancel(
        self, connection: AsyncConnection, job_id: UUID, *, include_ended: bool = False
    ) -> LifecycleData | None:
        """Cancel a job.

        A pending job gets the outcome that it was cancelled. The worker of a running job is notified. The
        file of a completed job expires now. The cancellation of an unknown job, or of one that another
        transaction holds, is stored as an early cancellation, and applied when the job is there.

        Args:
            connection: in a transaction.
            job_id: the job.
            include_ended: return the outcome of a job that has already ended as cancelled, too. The API
                stores outcomes and leaves the publication to workers.

        Returns:
            The outcome to publish after the commit, or ``None``.
        """
        locked = select(ExportJob.__table__, func.now().label("now")).where(ExportJob.id == job_id)
        row = (await connection.execute(locked.with_for_update(skip_locked=True))).one_or_none()
        if row is None:
            await connection.execute(insert(EarlyCancellation).values(job_id=job_id).on_conflict_do_nothing())
            return None
        found = LockedJob.of(row)
        if found.status == Status.COMPLETED:
            asked = found.cancel_requested_at or found.now
            await self._set(connection, job_id, expires_at=asked, cancel_requested_at=asked)
            return None
        if found.status not in UNFINISHED:
            return None
        asked = found.cancel_requested_at or found.now
        if found.cancel_requested_at is None:
            await self._set(connection, job_id, cancel_requested_at=asked)
        if found.outcome is not None:
            # It has ended, and the outcome is not applied yet. The projector sets the expiry of its file.
            return _stored_cancellation(found) if include_ended else None
        if found.status == Status.PROCESSING:
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, str(job_id))))
            return None
        return await self._store_outcome(connection, found, Status.CANCELLED, completed_at=asked)

    async def cancel_unfinished(self, connection: AsyncConnection, job_id: UUID) -> CancelResult | None:
        """Cancel a job that has not ended; return ``None`` if it has, or does not exist.

        In contrast to :meth:`cancel` it never removes the file of a completed job.
        """
        locked = select(ExportJob.status, ExportJob.outcome).where(ExportJob.id == job_id)
        row = (await connection.execute(locked.with_for_update())).one_or_none()
        if row is None or row.status not in UNFINISHED or row.outcome is not None:
            return None
        return CancelResult(has_ended=await self.cancel(connection, job_id) is not None)

    @staticmethod
    async def _set(connection: AsyncConnection, job_id: UUID, **values: Any) -> None:
        await connection.execute(update(ExportJob).where(ExportJob.id == job_id).values(**values))

    async def apply_early_cancellations(self, ids: Sequence[UUID] | None = None) -> list[LifecycleData]:
        """Apply early cancellations whose jobs are on record by now.

        A request and its cancellation that are handled at the same time, in two transactions, do not see each
        other. The transaction that commits last sees both, so both call this after their commit.

        Args:
            ids: the jobs. The default are the newest early cancellations.

        Returns:
            The outcomes to publish.
        """
        if ids is not None:
            # This runs for every request and finds nothing, so no other statement is built before.
            async with self._connect() as connection:
                if await CANCELLED_EARLY.scalar(connection, {"ids": list(ids)}) is None:
                    return []
        is_known = select(true()).where(ExportJob.id == EarlyCancellation.job_id).scalar_subquery()
        newest = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at > func.now() - EARLY_CANCELLATIONS_RACE)
            .order_by(EarlyCancellation.requested_at.desc())
            .limit(CANCELLATION_BATCH)
        )
        selected = (
            EarlyCancellation.job_id.in_(newest) if ids is None else EarlyCancellation.job_id == _any_of(ids)
        )
        is_applicable = and_(selected, is_known)
        if ids is None:
            async with self._connect() as connection:
                if (
                    await connection.scalar(select(EarlyCancellation.job_id).where(is_applicable).limit(1))
                    is None
                ):
                    return []
        statement = delete(EarlyCancellation).where(is_applicable).returning(EarlyCancellation.job_id)
        async with transaction(self._connections) as connection:
            settled = sorted(await connection.scalars(statement))
            outcomes = [await self.cancel(connection, job_id) for job_id in settled]
        return [outcome for outcome in outcomes if outcome is not None]

    async def delete_old_cancellations(self) -> None:
        """Delete early cancellations whose request has not come within :data:`EARLY_CANCELLATIONS_KEPT`."""
        old = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at < func.now() - EARLY_CANCELLATIONS_KEPT)
            .order_by(EarlyCancellation.requested_at)
            .limit(CANCELLATION_BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self._connect() as connection:
            await connection.execute(delete(EarlyCancellation).where(EarlyCancellation.job_id == _once(old)))

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
            return await self._store_outcome(connection, job, Status.CANCELLED, **known)
        error = JobError(
            code="worker_lost",
            message=f"The export was interrupted {job.failures + 1} times and is not tried again; "
            "request it anew, with fewer rows if it is very large",
        )
        return await self._store_outcome(connection, job, Status.FAILED, error=error, **known)

    async def _store_outcome(
        self, connection: AsyncConnection, job: LockedJob, status: Status, **known: Any
    ) -> LifecycleData:
        """Store the outcome of a job that no attempt holds and that this transaction has locked."""
        outcome = LifecycleData(
            job_id=job.id,
            user_id=job.user_id,
            export_type=job.export_type,
            format=job.format,
            name=job.name,
            attempt=job.attempt,
            status=status,
            traceparent=job.traceparent,
            **known,
        )
        await connection.execute(
            update(ExportJob)
            .where(ExportJob.id == job.id)
            .values(
                outcome=outcome.model_dump(mode="json", exclude_none=True),
                lease_until=func.now() + self._lease,
            )
        )
        return outcome

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
        return await self._store_outcome(connection, job, Status.EXPIRED, key=job.file_path, **times)

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
            .where(ExportJob.id == _once(waiting))
            .values(lease_until=func.now() + self._lease)
            .returning(ExportJob.id, ExportJob.outcome, ExportJob.traceparent)
        )
        async with self._connect() as connection:
            rows = (await connection.execute(statement)).all()
        return list(each_readable(rows, stored_outcome))


def stored_outcome(row: Any) -> LifecycleData:
    """Return the stored outcome of a row, in the job's trace.

    Raises:
        pydantic.ValidationError: another version stored it, and this one cannot read it.
    """
    return LifecycleData.model_validate(row.outcome | {"traceparent": row.traceparent})


def _stored_cancellation(job: LockedJob) -> LifecycleData | None:
    if job.outcome is None or job.outcome.get("status") != Status.CANCELLED:
        return None
    return stored_outcome(job)


def _once(ids: Select[UUID]) -> Any:
    """Return the ids as an array, whose subquery runs once.

    PostgreSQL can run a subquery of ``IN`` for each row. Each run skips the rows that an earlier one locked,
    so that more rows than its limit are found.
    """
    return any_(func.array(ids.scalar_subquery(), type_=ARRAY(Uuid)))


def _any_of(ids: Collection[UUID]) -> Any:
    return any_(literal(list(ids), ARRAY(Uuid)))

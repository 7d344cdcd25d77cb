"""Cancels jobs that wait, that run or that are completed, also before their request has come."""

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, and_, any_, delete, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.engine import Connections, autocommit_connection, transaction
from stream_app.db.listener import WAKE_CHANNEL
from stream_app.db.subqueries import any_once
from stream_app.jobs.models import EarlyCancellation, ExportJob
from stream_app.jobs.queue_sql import CANCELLED_EARLY
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.jobs.stored_outcomes import LockedJob, store_outcome, stored_outcome
from streaming_exporter.events import LifecycleData

EARLY_CANCELLATIONS_KEPT = timedelta(days=7)

EARLY_CANCELLATIONS_RACE = timedelta(minutes=10)
"""How long a cancellation and its request can miss each other. Later the request finds the cancellation."""

CANCELLATION_BATCH = 200
"""How many early cancellations one statement reads or deletes."""


@dataclass(frozen=True, slots=True)
class CancelResult:
    """The cancellation of a job.

    ``is_outcome_stored``: its outcome is stored. Otherwise a worker runs the job and stops it soon.
    """

    is_outcome_stored: bool


class Cancellations:
    """Cancels jobs, and keeps cancellations whose request has not come yet.

    Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
    """

    def __init__(self, connections: Connections, *, lease: timedelta) -> None:
        """Prepare the statements.

        Args:
            connections: the result of :func:`~stream_app.db.engine.autocommitting`, or connections of it.
            lease: the time after which an outcome that is not applied is published again.
        """
        self._connections = connections
        self._lease = lease

    def _connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return autocommit_connection(self._connections)

    async def cancel(
        self, connection: AsyncConnection, job_id: UUID, *, include_stored: bool = False
    ) -> LifecycleData | None:
        """Cancel a job.

        A pending job gets the outcome that it was cancelled. The worker of a running job is notified. The
        file of a completed job expires now. The cancellation of an unknown job, or of one that another
        transaction holds, is stored as an early cancellation, and applied when the job is there.

        Args:
            connection: in a transaction.
            job_id: the job.
            include_stored: return the outcome of a job that is already stored as cancelled, too. The API
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
            # The outcome is not applied yet. The projector sets the expiry of its file.
            return _stored_cancellation(found) if include_stored else None
        if found.status == Status.PROCESSING:
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, str(job_id))))
            return None
        return await store_outcome(connection, found, Status.CANCELLED, lease=self._lease, completed_at=asked)

    async def cancel_unfinished(self, connection: AsyncConnection, job_id: UUID) -> CancelResult | None:
        """Cancel a job without an outcome; return ``None`` if it has one, or does not exist.

        In contrast to :meth:`cancel` it never removes the file of a completed job.
        """
        locked = select(ExportJob.status, ExportJob.outcome).where(ExportJob.id == job_id)
        row = (await connection.execute(locked.with_for_update())).one_or_none()
        if row is None or row.status not in UNFINISHED or row.outcome is not None:
            return None
        return CancelResult(is_outcome_stored=await self.cancel(connection, job_id) is not None)

    @staticmethod
    async def _set(connection: AsyncConnection, job_id: UUID, **values: Any) -> None:
        await connection.execute(update(ExportJob).where(ExportJob.id == job_id).values(**values))

    async def apply_early(self, ids: Sequence[UUID] | None = None) -> list[LifecycleData]:
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

    async def delete_old(self) -> None:
        """Delete early cancellations whose request has not come within :data:`EARLY_CANCELLATIONS_KEPT`."""
        old = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at < func.now() - EARLY_CANCELLATIONS_KEPT)
            .order_by(EarlyCancellation.requested_at)
            .limit(CANCELLATION_BATCH)
            .with_for_update(skip_locked=True)
        )
        async with self._connect() as connection:
            await connection.execute(
                delete(EarlyCancellation).where(EarlyCancellation.job_id == any_once(old))
            )


def _stored_cancellation(job: LockedJob) -> LifecycleData | None:
    if job.outcome is None or job.outcome.get("status") != Status.CANCELLED:
        return None
    return stored_outcome(job)


def _any_of(ids: Collection[UUID]) -> Any:
    return any_(literal(list(ids), ARRAY(Uuid)))

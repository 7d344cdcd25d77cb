"""The jobs' table: admit, cancel, claim, renew, release, seal.

Claiming, renewing, releasing and sealing are fenced by ``(id, attempt, worker)``, so a worker whose
lease was taken over changes nothing. Terminal states are written by :mod:`stream_app.jobs.projection` alone.
Every method raises :class:`~stream_app.errors.Retryable` while the database cannot be reached.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.events import ExportRequest, JobError, LifecycleData
from stream_app.jobs.database import outages_are_retryable
from stream_app.jobs.models import EarlyCancellation, ExportJob
from stream_app.jobs.sql import ABANDONED, CLAIM, RENEW
from stream_app.jobs.states import UNFINISHED, Status

WAKE_CHANNEL = "exporter_jobs"
"""NOTIFY channel: an empty payload means new work, a job id means that it is to be cancelled."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt at one job; whoever holds it is the only one who may finish the job."""

    job_id: UUID
    attempt: int
    worker: str
    failures: int
    request: ExportRequest
    started_at: datetime
    traceparent: str | None = None

    def lifecycle(self, status: Status, **known: Any) -> LifecycleData:
        """Data of a lifecycle event about this attempt."""
        return LifecycleData(
            user_id=self.request.user_id,
            export_type=self.request.export_type,
            format=self.request.format,
            job_id=self.job_id,
            attempt=self.attempt,
            status=status,
            started_at=self.started_at,
            **known,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running attempt is, in rows."""

    job_id: UUID
    attempt: int
    rows: int
    estimated_rows: int | None


class JobStore:
    """All statements about ``export_jobs``."""

    def __init__(self, engine: AsyncEngine, *, lease: timedelta, user_slots: int, max_attempts: int) -> None:
        self._engine = engine
        self._lease = lease
        self._user_slots = user_slots
        self._max_attempts = max_attempts

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that the caller can extend over a publication."""
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                yield connection

    # --- admission -----------------------------------------------------------------------------

    async def admit(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> list[LifecycleData]:
        """Insert jobs, or mark those that the API inserted as admitted; what is known already is left alone.

        Returns the newly admitted ones' ``export.accepted`` data. Idle workers are woken on commit.
        """
        if not rows:
            return []
        statement = insert(ExportJob).values(list(rows))
        statement = statement.on_conflict_do_update(
            index_elements=[ExportJob.id],
            set_={
                name: statement.excluded[name]
                for name in ("admitted_at", "outcome", "cancel_requested_at", "lease_until")
            },
            where=and_(
                ExportJob.admitted_at.is_(None),
                ExportJob.outcome.is_(None),
                ExportJob.status == Status.PENDING,
                statement.excluded.admitted_at.is_not(None),
            ),
        )
        admitted = (
            await connection.execute(
                statement.returning(ExportJob.id, ExportJob.user_id, ExportJob.export_type, ExportJob.format)
            )
        ).all()
        await connection.execute(select(func.pg_notify(WAKE_CHANNEL, "")))
        return [
            LifecycleData(
                job_id=row.id,
                user_id=row.user_id,
                export_type=row.export_type,
                format=row.format,
                status=Status.PENDING,
            )
            for row in admitted
        ]

    async def cancel(self, connection: AsyncConnection, job_id: UUID) -> LifecycleData | None:
        """Ask for ``job_id`` to end; a cancellation of an unknown job is remembered for when it comes.

        A pending job is sealed as cancelled and its event's data returned for publication after the
        commit; the worker of a running one is notified. A completed one's file expires now.
        """
        found = (
            await connection.execute(
                update(ExportJob)
                .where(ExportJob.id == job_id, ExportJob.status.in_(UNFINISHED))
                .values(cancel_requested_at=func.coalesce(ExportJob.cancel_requested_at, func.now()))
                .returning(ExportJob.__table__)
            )
        ).one_or_none()
        if found is None:
            await self._cancel_finished(connection, job_id)
            return None
        if found.outcome is not None:
            return None  # it has ended, only not on record yet; the projection lets its file expire
        if found.status == Status.PROCESSING:
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, str(job_id))))
            return None
        return await self._seal_unheld(
            connection, found, Status.CANCELLED, completed_at=found.cancel_requested_at
        )

    async def _cancel_finished(self, connection: AsyncConnection, job_id: UUID) -> None:
        """Let a completed job's file expire; note the cancellation of a job that is not known yet."""
        await connection.execute(
            update(ExportJob)
            .where(ExportJob.id == job_id, ExportJob.status == Status.COMPLETED)
            .values(expires_at=func.now())
        )
        if await connection.scalar(select(ExportJob.id).where(ExportJob.id == job_id)) is None:
            await connection.execute(insert(EarlyCancellation).values(job_id=job_id).on_conflict_do_nothing())

    async def take_early_cancellations(self, connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
        """Those of ``ids`` whose cancellation came first; each is handed out once."""
        statement = (
            delete(EarlyCancellation)
            .where(EarlyCancellation.job_id.in_(ids))
            .returning(EarlyCancellation.job_id)
        )
        return set((await connection.scalars(statement)).all())

    # --- work ----------------------------------------------------------------------------------

    async def claim(self, worker: str, limit: int) -> list[Claim]:
        """Take up to ``limit`` jobs: pending ones that are due, and those whose worker fell silent.

        Priority first, then the user with the fewest jobs running or ahead, then age. A job that
        has used up its attempts is not taken; see :meth:`seal_exhausted`.
        """
        async with self.transaction() as connection:
            rows = (
                await connection.execute(
                    CLAIM,
                    {
                        "worker": worker,
                        "limit": limit,
                        "lease": self._lease,
                        "user_slots": self._user_slots,
                        "max_attempts": self._max_attempts,
                    },
                )
            ).all()
        return [
            Claim(
                job_id=row.id,
                attempt=row.attempt,
                worker=worker,
                failures=row.failures,
                request=ExportRequest.parse(dict(row._mapping) | {"priority": None}),
                started_at=row.started_at,
                traceparent=row.traceparent,
            )
            for row in rows
        ]

    async def renew(self, worker: str, progress: Sequence[Progress]) -> tuple[set[UUID], set[UUID]]:
        """Renew the leases of running attempts and record how far they are.

        Returns the ids that are still held, and those of them that are to be cancelled.
        """
        if not progress:
            return set(), set()
        async with self.transaction() as connection:
            rows = (
                await connection.execute(
                    RENEW,
                    {
                        "worker": worker,
                        "lease": self._lease,
                        "ids": [item.job_id for item in progress],
                        "attempts": [item.attempt for item in progress],
                        "rows": [item.rows for item in progress],
                        "estimates": [item.estimated_rows for item in progress],
                    },
                )
            ).all()
        return {row.id for row in rows}, {row.id for row in rows if row.cancelled}

    async def release(self, claim: Claim, *, delay: timedelta = timedelta(0), failed: bool = True) -> bool:
        """Hand a job back to ``pending``, due after ``delay``; returns whether the lease was still held.

        ``failed`` counts towards the attempts that are allowed; a drained worker has not failed.
        """
        values = {
            "status": Status.PENDING,
            "worker": None,
            "lease_until": None,
            "not_before": func.now() + delay,
            "row_count": None,
            "failures": ExportJob.failures + int(failed),
        }
        async with self.transaction() as connection:
            released = await connection.scalar(_held(claim, values).returning(ExportJob.id))
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, "")))
        return released is not None

    async def seal(self, claim: Claim, outcome: LifecycleData) -> bool:
        """Fix how the job ends; returns whether the lease was still held, also when asked twice.

        From here on the job is nobody's: it cannot be claimed, and :meth:`unpublished` hands out the
        outcome again if its event does not get through.
        """
        sealed = outcome.model_dump(mode="json", exclude_none=True)
        values = {"outcome": sealed, "lease_until": self._until()}
        own = and_(ExportJob.id == claim.job_id, ExportJob.outcome == sealed)
        async with self.transaction() as connection:
            if await connection.scalar(_held(claim, values).returning(ExportJob.id)) is not None:
                return True
            return await connection.scalar(select(ExportJob.id).where(own)) is not None

    async def seal_exhausted(self) -> list[LifecycleData]:
        """Seal jobs that nobody works on any more and that may not be tried again.

        These are abandoned attempts whose cancellation was asked for, and those that were the last.
        """
        async with self.transaction() as connection:
            rows = (await connection.execute(ABANDONED, {"max_attempts": self._max_attempts})).all()
            return [await self._seal_abandoned(connection, row) for row in rows]

    async def _seal_abandoned(self, connection: AsyncConnection, row: Row[Any]) -> LifecycleData:
        known = {"started_at": row.started_at, "completed_at": row.now}
        if row.cancel_requested_at is not None:
            return await self._seal_unheld(connection, row, Status.CANCELLED, **known)
        error = JobError(
            code="worker_lost",
            message=f"The export was interrupted {row.failures + 1} times and is not tried again; "
            "request it anew, with fewer rows if it is very large",
        )
        return await self._seal_unheld(connection, row, Status.FAILED, error=error, **known)

    async def _seal_unheld(
        self, connection: AsyncConnection, row: Row[Any], status: Status, **known: Any
    ) -> LifecycleData:
        """Seal a job that no attempt holds, and that this transaction has locked."""
        outcome = LifecycleData(
            job_id=row.id,
            user_id=row.user_id,
            export_type=row.export_type,
            format=row.format,
            attempt=row.attempt,
            status=status,
            **known,
        )
        await connection.execute(
            update(ExportJob)
            .where(ExportJob.id == row.id)
            .values(outcome=outcome.model_dump(mode="json", exclude_none=True), lease_until=self._until())
        )
        return outcome

    async def seal_expired(self, limit: int = 100) -> list[LifecycleData]:
        """Seal completed jobs whose time is over as expired; their files are to be removed first."""
        async with self.transaction() as connection:
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
            return [
                await self._seal_unheld(
                    connection, row, Status.EXPIRED, key=row.file_path, completed_at=row.completed_at
                )
                for row in rows.all()
            ]

    async def unpublished(self, limit: int = 100) -> list[LifecycleData]:
        """Outcomes that were sealed a lease ago and are not applied yet: their events are due again."""
        waiting = (
            select(ExportJob.id)
            .where(ExportJob.outcome.is_not(None), ExportJob.lease_until < func.now())
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        statement = (
            update(ExportJob)
            .where(ExportJob.id.in_(waiting))
            .values(lease_until=self._until())
            .returning(ExportJob.outcome)
        )
        async with self.transaction() as connection:
            return [LifecycleData.model_validate(row) for row in await connection.scalars(statement)]

    def _until(self) -> Any:
        return func.now() + self._lease


def _held(claim: Claim, values: dict[str, Any]) -> Any:
    return (
        update(ExportJob)
        .where(
            ExportJob.id == claim.job_id,
            ExportJob.attempt == claim.attempt,
            ExportJob.worker == claim.worker,
            ExportJob.status == Status.PROCESSING,
            ExportJob.outcome.is_(None),
        )
        .values(**values)
    )

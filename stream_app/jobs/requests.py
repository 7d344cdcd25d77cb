"""What producers ask of jobs: that there is one, that it ends."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import ARRAY, Uuid, and_, any_, delete, func, literal, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.events import LifecycleData
from stream_app.jobs.models import EarlyCancellation, ExportJob
from stream_app.jobs.outcomes import Outcomes
from stream_app.jobs.sql import admit
from stream_app.jobs.states import UNFINISHED, Status
from stream_app.jobs.transactions import WAKE_CHANNEL

EARLY_CANCELLATIONS_KEPT = timedelta(days=7)
EARLY_CANCELLATIONS_RACE = timedelta(minutes=10)
"""For how long a cancellation and its request can have missed each other; later the request finds it."""

AT_ONCE = 200
"""Early cancellations that are looked at, or dropped, in one go: however many are garbage."""


class Requests(Outcomes):
    """Admit and cancel."""

    async def admit(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> list[LifecycleData]:
        """Insert jobs, or mark those that the API inserted as admitted; what is known already is left alone.

        Returns the newly admitted ones' ``export.accepted`` data. Idle workers are woken on commit.
        """
        if not rows:
            return []
        admitted = await connection.execute(admit(rows[0]), {"rows": to_json(rows).decode()})
        return [
            LifecycleData(
                job_id=row.id,
                user_id=row.user_id,
                export_type=row.export_type,
                format=row.format,
                status=Status.PENDING,
                traceparent=row.traceparent,
            )
            for row in admitted
        ]

    async def known(self, connection: AsyncConnection, ids: Collection[UUID]) -> set[UUID]:
        """Those of ``ids`` that have a job; until the transaction ends, none of them is removed."""
        if not ids:
            return set()
        statement = select(ExportJob.id).where(ExportJob.id == _any_of(ids))
        return set((await connection.scalars(statement.with_for_update(read=True, key_share=True))).all())

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
            if await self._cancel_finished(connection, job_id):
                return None
            return await self.cancel(connection, job_id)
        if found.outcome is not None:
            return None  # it has ended, only not on record yet; the projection lets its file expire
        if found.status == Status.PROCESSING:
            await connection.execute(select(func.pg_notify(WAKE_CHANNEL, str(job_id))))
            return None
        return await self._seal_unheld(
            connection, found, Status.CANCELLED, completed_at=found.cancel_requested_at
        )

    async def _cancel_finished(self, connection: AsyncConnection, job_id: UUID) -> bool:
        """Let a completed job's file expire; note the cancellation of a job that is not known yet.

        Returns whether that was all: one whose admission was committed just now is still to be cancelled.
        """
        await connection.execute(
            update(ExportJob)
            .where(ExportJob.id == job_id, ExportJob.status == Status.COMPLETED)
            .values(expires_at=func.now())
        )
        status = await connection.scalar(select(ExportJob.status).where(ExportJob.id == job_id))
        if status is None:
            await connection.execute(insert(EarlyCancellation).values(job_id=job_id).on_conflict_do_nothing())
        return status not in UNFINISHED

    async def early_cancellations(self, connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
        """Those of ``ids`` whose cancellation came first."""
        statement = select(EarlyCancellation.job_id).where(EarlyCancellation.job_id == _any_of(ids))
        return set((await connection.scalars(statement)).all())

    async def settle_cancellations(self, ids: Sequence[UUID] | None = None) -> list[LifecycleData]:
        """Carry out early cancellations, of ``ids`` or the newest, whose jobs have come.

        Returns the outcomes, which are to be published.

        A request and its cancellation that are dealt with at the same time, in two transactions, do not see
        each other. Whoever commits last does: so this is called after the commit by both.
        """
        is_known = select(true()).where(ExportJob.id == EarlyCancellation.job_id).scalar_subquery()
        newest = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at > func.now() - EARLY_CANCELLATIONS_RACE)
            .order_by(EarlyCancellation.requested_at.desc())
            .limit(AT_ONCE)
        )
        meant = (
            EarlyCancellation.job_id.in_(newest) if ids is None else EarlyCancellation.job_id == _any_of(ids)
        )
        come = and_(meant, is_known)
        async with self.statement() as connection:
            if await connection.scalar(select(EarlyCancellation.job_id).where(come).limit(1)) is None:
                return []
        statement = delete(EarlyCancellation).where(come).returning(EarlyCancellation.job_id)
        async with self.transaction() as connection:
            settled = sorted(await connection.scalars(statement))
            outcomes = [await self.cancel(connection, job_id) for job_id in settled]
        return [outcome for outcome in outcomes if outcome is not None]

    async def forget_cancellations(self) -> None:
        """Drop the oldest early cancellations: no request has come in :data:`EARLY_CANCELLATIONS_KEPT`."""
        old = (
            select(EarlyCancellation.job_id)
            .where(EarlyCancellation.requested_at < func.now() - EARLY_CANCELLATIONS_KEPT)
            .order_by(EarlyCancellation.requested_at)
            .limit(AT_ONCE)
            .with_for_update(skip_locked=True)
        )
        async with self.statement() as connection:
            await connection.execute(delete(EarlyCancellation).where(EarlyCancellation.job_id.in_(old)))


def _any_of(ids: Collection[UUID]) -> Any:
    return any_(literal(list(ids), ARRAY(Uuid)))

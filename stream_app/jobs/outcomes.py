"""How jobs end: outcomes are sealed, and handed out until they are applied.

Terminal states are written by :mod:`stream_app.jobs.projection` alone.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import structlog
from pydantic import ValidationError
from pydantic_core import to_json
from sqlalchemy import Row, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.events import JobError, LifecycleData
from stream_app.jobs.claims import Claim
from stream_app.jobs.models import ExportJob
from stream_app.jobs.rows import each_readable
from stream_app.jobs.sql import ABANDONED, SEAL
from stream_app.jobs.states import Status
from stream_app.jobs.transactions import Transactions

log = structlog.get_logger(__name__)


def sealed_outcome(row: Any) -> LifecycleData:
    """The outcome that a row has and that is not applied yet, in the job's trace.

    Raises:
        pydantic.ValidationError: another version sealed it.
    """
    return LifecycleData.model_validate(row.outcome | {"traceparent": row.traceparent})


class Outcomes(Transactions):
    """Seal, and look for what was sealed but not applied."""

    async def seal(self, claim: Claim, outcome: LifecycleData) -> bool:
        """Fix how the job ends; returns whether the lease was still held, also when asked twice.

        From here on the job is nobody's: it cannot be claimed, and :meth:`unpublished` hands out the
        outcome again if its event does not get through.
        """
        sealed = outcome.model_dump(mode="json", exclude_none=True)
        values = {
            "id": claim.job_id,
            "attempt": claim.attempt,
            "worker": claim.worker,
            "outcome": to_json(sealed).decode(),
            "lease": self._lease,
        }
        async with self.statement() as connection:
            if await connection.scalar(SEAL, values) is not None:
                return True
            # Whoever tends to outcomes may have published it before it was asked for again. The whole is
            # compared: an attempt of the same number can have ended the job otherwise, see Storage.key.
            applied = and_(
                ExportJob.outcome.is_(None),
                ExportJob.status == outcome.status,
                ExportJob.file_path.is_not_distinct_from(outcome.key),
                ExportJob.completed_at.is_not_distinct_from(outcome.completed_at),
            )
            own = and_(
                ExportJob.id == claim.job_id,
                ExportJob.attempt == claim.attempt,
                or_(ExportJob.outcome == sealed, applied),
            )
            return await connection.scalar(select(ExportJob.id).where(own)) is not None

    async def completed_by(self, job_id: UUID) -> int | None:
        """The attempt whose file the job keeps, be its completion on record or only sealed."""
        completed = or_(
            ExportJob.status == Status.COMPLETED, ExportJob.outcome["status"].as_string() == Status.COMPLETED
        )
        async with self.statement() as connection:
            return await connection.scalar(select(ExportJob.attempt).where(ExportJob.id == job_id, completed))

    async def seal_exhausted(self) -> list[LifecycleData]:
        """Seal jobs that nobody works on any more and that may not be tried again.

        These are abandoned attempts whose cancellation was asked for, and those that were the last.
        """
        async with self.transaction() as connection:
            rows = (await connection.execute(ABANDONED, {"max_attempts": self._max_attempts})).all()
            return await self._seal_each(connection, rows, self._seal_abandoned)

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
            traceparent=row.traceparent,
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
            return await self._seal_each(connection, rows.all(), self._seal_expired)

    async def _seal_expired(self, connection: AsyncConnection, row: Row[Any]) -> LifecycleData:
        times = {"completed_at": row.completed_at, "expires_at": row.expires_at}
        return await self._seal_unheld(connection, row, Status.EXPIRED, key=row.file_path, **times)

    @staticmethod
    async def _seal_each(
        connection: AsyncConnection,
        rows: Sequence[Row[Any]],
        seal: Callable[[AsyncConnection, Row[Any]], Awaitable[LifecycleData]],
    ) -> list[LifecycleData]:
        """Seal row by row; one of which no outcome can be made is logged, and keeps no other from its end."""
        sealed = []
        for row in rows:
            try:
                sealed.append(await seal(connection, row))
            except ValidationError as error:
                log.warning("job.unsealable", job_id=str(row.id), error=str(error))
        return sealed

    async def unpublished(self, limit: int = 100) -> list[LifecycleData]:
        """Outcomes that were sealed a lease ago and are not applied yet: their events are due again.

        However many files wait to be removed, they keep no job from its end.
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
            .where(ExportJob.id.in_(waiting))
            .values(lease_until=self._until())
            .returning(ExportJob.id, ExportJob.outcome, ExportJob.traceparent)
        )
        async with self.statement() as connection:
            rows = (await connection.execute(statement)).all()
        return list(each_readable(rows, sealed_outcome))

"""Who works on what: claims, their heartbeats, and handing back.

All is fenced by ``(id, attempt, worker)``, so a worker whose lease was taken over changes nothing.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from pydantic_core import to_json
from sqlalchemy import Row, case, func, update

from stream_app.errors import Retryable
from stream_app.events import ExportRequest, JobError, LifecycleData
from stream_app.jobs.models import ExportJob
from stream_app.jobs.sql import CLAIM, CLAIM_SETTINGS, LEAVE, RENEW
from stream_app.jobs.states import Status
from stream_app.jobs.transactions import WAKE_CHANNEL, Transactions

log = structlog.get_logger(__name__)

UNKNOWN_KEPT = timedelta(days=7)
"""How long a job waits for a worker that understands it."""

UNKNOWN = JobError(
    code="unknown_request",
    message="No worker understood the request within 7 days; operators: a newer version admitted it",
).model_dump()

WINDOW = 200
"""How many users, and how many of the first jobs in line, one claim looks at."""


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
    asked_at: datetime | None = None
    window: dict[str, Any] | None = None
    claimed: float = field(default_factory=time.monotonic, compare=False)

    @property
    def now(self) -> datetime:
        """The time by the database's clock, counted on from the claim."""
        return self.started_at + timedelta(seconds=time.monotonic() - self.claimed)

    @property
    def named(self) -> dict[str, Any]:
        """What every line of the log about this attempt bears."""
        return {"job_id": str(self.job_id), "user_id": self.request.user_id, "attempt": self.attempt}

    @property
    def traced(self) -> dict[str, Any]:
        """What its span says of it."""
        return {
            "exporter.job.id": str(self.job_id),
            "exporter.dataset": self.request.export_type,
            "exporter.format": self.request.format,
            "exporter.attempt": self.attempt,
        }

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
            traceparent=self.traceparent,
            **known,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running attempt is, in rows."""

    job_id: UUID
    attempt: int
    rows: int
    estimated_rows: int | None


def _claim_of(row: Row[Any], worker: str) -> Claim:
    """The claim that a row is.

    Raises:
        Rejected: this version does not know what it asks for.
    """
    return Claim(
        job_id=row.id,
        attempt=row.attempt,
        worker=worker,
        failures=row.failures,
        request=ExportRequest.parse(dict(row._mapping) | {"priority": None}),
        started_at=row.started_at,
        traceparent=row.traceparent,
        asked_at=row.created_at,
        window=row.window,
    )


class Claims(Transactions):
    """Claim, renew, release."""

    _last_user = ""

    async def claim(self, worker: str, limit: int) -> list[Claim]:
        """Take up to ``limit`` jobs: pending ones that are due, and those whose worker fell silent.

        Priority first, then the user with the fewest jobs running or ahead, then age. A job that
        has used up its attempts is not taken; see :meth:`seal_exhausted`.
        """
        values = {
            "after": self._last_user,
            "window": WINDOW,
            "worker": worker,
            "limit": limit,
            "lease": self._lease,
            "user_slots": self._user_slots,
            "max_attempts": self._max_attempts,
        }
        async with self.transaction(CLAIM_SETTINGS) as connection:
            rows = (await connection.execute(CLAIM, values)).all()
        self._last_user = rows[0].after
        claims, unknown = [], []
        for row in rows:
            if row.id is not None:
                try:
                    claims.append(_claim_of(row, worker))
                except Exception as error:  # a newer version's: the claim is committed, and others are in it
                    log.warning("job.unknown_here", job_id=str(row.id), error=str(error))
                    unknown.append(row.id)
        if unknown:
            await self._leave_to_others(worker, unknown)
        return claims

    async def _leave_to_others(self, worker: str, ids: Sequence[UUID]) -> None:
        """Give jobs up that this version cannot read, without a failure; after some days they have failed."""
        error = to_json(UNKNOWN).decode()
        values = {"worker": worker, "ids": list(ids), "patience": UNKNOWN_KEPT, "error": error}
        try:
            async with self.statement() as connection:
                await connection.execute(LEAVE, values)
        except Retryable as error:  # their leases run out; what else was claimed is to run
            log.warning("job.unreleased", jobs=len(ids), error=str(error))

    async def renew(self, worker: str, progress: Sequence[Progress]) -> tuple[set[UUID], set[UUID]]:
        """Renew the leases of running attempts and record how far they are.

        Returns the ids that are still held, and those of them that are to be cancelled.
        """
        if not progress:
            return set(), set()
        async with self.statement() as connection:
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

    async def release(
        self,
        claim: Claim,
        *,
        delay: timedelta = timedelta(0),
        failed: bool = True,
        waits_for: JobError | None = None,
    ) -> bool:
        """Hand a job back to ``pending``, due after ``delay``; returns whether the lease was still held.

        ``waits_for`` is shown with the job until it is claimed again.

        ``failed`` counts towards the attempts that are allowed; a drained worker has not failed. A job that
        is to be cancelled is left as an abandoned one, which :meth:`seal_exhausted` cancels.
        """
        cancelled = ExportJob.cancel_requested_at.is_not(None)
        values = {
            "status": case((cancelled, ExportJob.status), else_=Status.PENDING),
            "worker": None,
            "lease_until": case((cancelled, func.now())),
            "not_before": func.now() + delay,
            "row_count": None,
            "failures": ExportJob.failures + int(failed),
            "error_code": waits_for and waits_for.code,
            "error_message": waits_for and waits_for.message,
        }
        statement = (
            update(ExportJob)
            .where(
                ExportJob.id == claim.job_id,
                ExportJob.attempt == claim.attempt,
                ExportJob.worker == claim.worker,
                ExportJob.status == Status.PROCESSING,
                ExportJob.outcome.is_(None),
            )
            .values(**values)
            .returning(func.pg_notify(WAKE_CHANNEL, ""))
        )
        async with self.statement() as connection:
            return (await connection.execute(statement)).one_or_none() is not None

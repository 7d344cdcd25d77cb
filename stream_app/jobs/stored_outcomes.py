"""Stores the outcomes of jobs that no attempt holds, and reads stored outcomes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Row, func, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from streaming_exporter.events import LifecycleData


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


async def store_outcome(
    connection: AsyncConnection, job: LockedJob, status: Status, *, lease: timedelta, **known: Any
) -> LifecycleData:
    """Store the outcome of a job that no attempt holds and that this transaction has locked.

    Args:
        connection: in a transaction.
        job: the locked row.
        status: the status of the outcome.
        lease: the time after which the outcome is published again if it is not applied.
        known: further fields of the outcome.
    """
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
            lease_until=func.now() + lease,
        )
    )
    return outcome


def stored_outcome(row: Any) -> LifecycleData:
    """Return the stored outcome of a row, in the job's trace.

    Raises:
        pydantic.ValidationError: another version stored it, and this one cannot read it.
    """
    return LifecycleData.model_validate(row.outcome | {"traceparent": row.traceparent})

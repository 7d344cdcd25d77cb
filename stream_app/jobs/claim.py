"""A claim: one attempt at one job, held by one worker under a lease."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from stream_app.jobs.states import Status
from streaming_exporter.events import ExportRequest, LifecycleData


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of one worker to one attempt at a job. Only the holder of the lease can end the job.

    :class:`~stream_app.jobs.queue.JobQueue` takes, renews and releases the lease.

    ``claimed`` is the time of the claim by :func:`time.monotonic`. ``run_day`` is the day on which the run of
    a schedule was due, in the schedule's time zone.
    """

    job_id: UUID
    attempt: int
    worker: str
    failures: int
    request: ExportRequest
    started_at: datetime
    traceparent: str | None = None
    requested_at: datetime | None = None
    window: dict[str, Any] | None = None
    run_day: date | None = None
    claimed: float = field(default_factory=time.monotonic, compare=False)

    @property
    def now(self) -> datetime:
        """The time by the database's clock: its time at the claim, and the time that has passed since."""
        return self.started_at + timedelta(seconds=time.monotonic() - self.claimed)

    @property
    def log_fields(self) -> dict[str, Any]:
        """Fields of every log line about this attempt."""
        return {"job_id": str(self.job_id), "user_id": self.request.user_id, "attempt": self.attempt}

    @property
    def trace_attributes(self) -> dict[str, Any]:
        """Attributes of the attempt's span."""
        return {
            "exporter.job.id": str(self.job_id),
            "exporter.dataset": self.request.export_type,
            "exporter.format": self.request.format,
            "exporter.attempt": self.attempt,
        }

    def lifecycle(self, status: Status, **known: Any) -> LifecycleData:
        """Return the data of a lifecycle event about this attempt."""
        return LifecycleData(
            user_id=self.request.user_id,
            export_type=self.request.export_type,
            format=self.request.format,
            name=self.request.name,
            job_id=self.job_id,
            attempt=self.attempt,
            status=status,
            started_at=self.started_at,
            traceparent=self.traceparent,
            **known,
        )


def run_day_of(run_at: datetime | None, zone: str | None, window: Mapping[str, Any] | None) -> date | None:
    """Return the day on which a run was due, in the time zone of its window, or else of its schedule.

    ``None`` without a run, or if the zone is not known: the schedule was deleted, for example.
    """
    name = (window or {}).get("timezone") or zone
    if run_at is None or not isinstance(name, str):
        return None
    try:
        return run_at.astimezone(ZoneInfo(name)).date()
    except (ZoneInfoNotFoundError, ValueError, OSError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class AttemptProgress:
    """How many rows a running attempt has written, how many it expects, and what it does (``stages``)."""

    job_id: UUID
    attempt: int
    rows: int
    estimated_rows: int | None
    stages: dict[str, Any] | None = None

"""Builds the log line that summarizes a job that has ended."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from stream_app.jobs.models import ExportJob
from streaming_exporter.events import LifecycleData

SECONDS = "seconds"
"""Field of the manifest of a job: the busy seconds of the stages ``source``, ``render`` and ``upload``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedJob:
    """The columns of a job's row after its outcome was applied.

    ``had_stored_outcome`` is False if the outcome was applied once before, and the state database was then
    restored to an earlier time. In that case the notifications were already sent.
    """

    had_stored_outcome: bool
    id: UUID
    source: str | None
    schedule_id: UUID | None
    options: Any
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    attempt: int
    failures: int
    worker: str | None
    row_count: int | None
    file_size: int | None
    recipients: Any
    webhook: str | None


ENDED_COLUMNS = tuple(
    ExportJob.__table__.columns[field.name]
    for field in fields(EndedJob)
    if field.name != "had_stored_outcome"
)
"""The columns of the table that :class:`EndedJob` has."""


def summarize(data: LifecycleData, record: EndedJob) -> dict[str, Any]:
    """Return the fields of the log line about a job that has ended. Unknown fields are left out.

    ``queue_seconds`` is the time from the request to the start of the last attempt. ``duration_seconds`` is
    the time from that start to the end.

    Args:
        data: the data of the event that ended the job.
        record: the job's row.
    """
    fields = {
        "job_id": str(data.job_id),
        "user_id": data.user_id,
        "source": record.source,
        "schedule_id": record.schedule_id and str(record.schedule_id),
        "dataset": data.export_type,
        "format": data.format,
        "compression": _compression(record.options),
        "rows": record.row_count,
        "bytes": record.file_size,
        "queue_seconds": _between(record.created_at, record.started_at),
        "duration_seconds": _between(record.started_at, record.completed_at),
        **{f"{name}_seconds": value for name, value in seconds_of(data.manifest).items()},
        "attempt": record.attempt,
        "failures": record.failures,
        "worker": record.worker,
        "error_code": data.error and data.error.code,
        "error": data.error and data.error.message,
        "warnings": (data.manifest or {}).get("warnings"),
    }
    return {name: value for name, value in fields.items() if value not in (None, {})}


def seconds_of(manifest: object) -> dict[str, float]:
    """Return the busy seconds of the stages of a job, as far as its manifest has them."""
    found = manifest.get(SECONDS) if isinstance(manifest, dict) else None
    return found if isinstance(found, dict) else {}


def _compression(options: object) -> str | None:
    """Return the requested compression, or ``None`` if an invalid request has none."""
    asked = options.get("compression") if isinstance(options, dict) else None
    return asked if isinstance(asked, str) else None


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)

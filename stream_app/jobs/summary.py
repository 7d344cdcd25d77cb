"""Builds the log line that summarizes a job that has ended."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from stream_app.jobs.models import ExportJob
from streaming_exporter.events import LifecycleData

SUMMARY_COLUMNS = (
    ExportJob.id,
    ExportJob.source,
    ExportJob.schedule_id,
    ExportJob.options,
    ExportJob.created_at,
    ExportJob.started_at,
    ExportJob.completed_at,
    ExportJob.attempt,
    ExportJob.failures,
    ExportJob.worker,
    ExportJob.row_count,
    ExportJob.file_size,
)
"""Columns of the job's record that :func:`summarize` needs."""


def summarize(data: LifecycleData, record: Row[Any]) -> dict[str, Any]:
    """Return the fields of the log line about a job that has ended. Unknown fields are left out.

    ``queue_seconds`` is the time from the request to the start of the last attempt, ``duration_seconds`` the
    time from there to the end.

    Args:
        data: the data of the event that ended the job.
        record: the columns :data:`SUMMARY_COLUMNS` of the job's row.
    """
    told = {
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
        "attempt": record.attempt,
        "failures": record.failures,
        "worker": record.worker,
        "error_code": data.error and data.error.code,
        "error": data.error and data.error.message,
        "warnings": (data.manifest or {}).get("warnings"),
    }
    return {name: value for name, value in told.items() if value not in (None, {})}


def _compression(options: object) -> str | None:
    """Return the requested compression, or ``None`` if an invalid request has none."""
    asked = options.get("compression") if isinstance(options, dict) else None
    return asked if isinstance(asked, str) else None


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else round((end - start).total_seconds(), 3)

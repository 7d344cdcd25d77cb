"""From a request event to the row that is inserted for it. Pure."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stream_app.errors import Rejected
from stream_app.events import Event, ExportRequest, JobError, LifecycleData
from stream_app.exports.formats.registry import MISSING
from stream_app.jobs.states import Status

PUBLISHING = timedelta(seconds=10)
"""How long an outcome that was decided at admission may take to be published before it is published again."""

PRIORITIES = {"high": 0, "normal": 1, "low": 2}


def job_row(
    event: Event,
    *,
    now: datetime,
    formats: Collection[str],
    datasets: Collection[str],
    cancelled: bool = False,
) -> dict[str, Any]:
    """Column values of the new job.

    A request that can never be honoured, or whose cancellation came first, gets its outcome at once.
    Whether columns and filters fit the table is found out by the attempt, which can ask the source.

    Raises:
        Unreadable: the event lacks what a job's record needs.
    """
    identity = event.identity
    job_id: UUID = event.job_id
    row = {
        "id": job_id,
        **identity.model_dump(),
        "source": event.source,
        "traceparent": event.traceparent,
        "created_at": now,
        "filters": event.data.get("filters"),
        "columns": event.data.get("columns"),
        "options": event.data.get("options"),
        "scope": _as_text(event.data.get("scope")),
        "recipients": event.data.get("recipients"),
        "priority": PRIORITIES["normal"],
        "admitted_at": None,
        "cancel_requested_at": None,
        "outcome": None,
        "lease_until": now + PUBLISHING,
    }
    try:
        row["priority"] = PRIORITIES[check(event.data, formats=formats, datasets=datasets).priority]
    except Rejected as error:
        row["outcome"] = _outcome(
            event, Status.FAILED, now, error=JobError(code=error.code, message=str(error))
        )
    if cancelled:
        row |= {"cancel_requested_at": now, "outcome": _outcome(event, Status.CANCELLED, now)}
    return row


def check(data: dict[str, Any], *, formats: Collection[str], datasets: Collection[str]) -> ExportRequest:
    """Everything about a request that can be judged without the source database.

    Raises:
        Rejected: naming the field and what is allowed.
    """
    request = ExportRequest.parse(data)
    if request.export_type not in datasets:
        raise Rejected(
            f"there is no dataset {request.export_type!r}",
            code="unknown_dataset",
            field="export_type",
            allowed=sorted(datasets),
        )
    if request.format not in formats:
        reason = MISSING.get(request.format)
        raise Rejected(
            f"there is no format {request.format!r}" + (f": {reason}" if reason else ""),
            code="unknown_format",
            field="format",
            allowed=sorted(formats),
        )
    return request


def _outcome(event: Event, status: Status, now: datetime, **known: Any) -> dict[str, Any]:
    data = LifecycleData(
        job_id=event.job_id, **event.identity.model_dump(), status=status, completed_at=now, **known
    )
    return data.model_dump(mode="json", exclude_none=True)


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)

"""From a request event to the row that is inserted for it, and back. Pure."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from stream_app.addresses import AddressRules
from stream_app.exports.formats.registry import MISSING
from stream_app.jobs.states import Status
from streaming_exporter.errors import Rejected
from streaming_exporter.events import (
    SCHEDULES,
    SOURCE,
    Event,
    EventType,
    ExportRequest,
    JobError,
    LifecycleData,
)

PUBLISHING = timedelta(seconds=10)
"""How long a request, or an outcome that was decided at admission, may take to be published and read."""

ANYWHERE = AddressRules()
"""Mails to any domain, webhooks to any public host."""

PRIORITIES = {"high": 0, "normal": 1, "low": 2}

REQUESTED = (
    "user_id",
    "export_type",
    "format",
    "filters",
    "columns",
    "options",
    "scope",
    "recipients",
    "webhook",
)
"""Columns that stand in a request's ``data`` under the same names."""


def job_row(
    event: Event,
    *,
    now: datetime,
    formats: Collection[str],
    datasets: Collection[str],
    addressing: AddressRules = ANYWHERE,
    cancelled: bool = False,
    refusal: Rejected | None = None,
) -> dict[str, Any]:
    """Column values of the new job.

    A request that can never be honoured, that the caller refuses, or whose cancellation came first, gets its
    outcome at once.
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
        "webhook": _as_text(event.data.get("webhook")),
        "priority": _default_priority(event.source),
        "admitted_at": None,
        "cancel_requested_at": None,
        "outcome": None,
        "lease_until": now + PUBLISHING,
    }
    try:
        request = check(event.data, formats=formats, datasets=datasets, addressing=addressing)
        row["recipients"] = request.recipients or None
        if "priority" in request.model_fields_set:
            row["priority"] = PRIORITIES[request.priority]
        if refusal is not None:
            raise refusal
    except Rejected as error:
        row["outcome"] = _outcome(
            event, Status.FAILED, now, error=JobError(code=error.code, message=str(error))
        )
    return cancelled_row(row, event, now) if cancelled else row


def cancelled_row(row: dict[str, Any], event: Event, now: datetime) -> dict[str, Any]:
    """``row`` as that of a job whose cancellation came first: it has ended as it is admitted."""
    return row | {"cancel_requested_at": now, "outcome": _outcome(event, Status.CANCELLED, now)}


def accepted(event: Event) -> LifecycleData:
    """Data of the ``export.accepted`` event of a request."""
    return LifecycleData(
        job_id=event.job_id,
        **event.identity.model_dump(),
        status=Status.PENDING,
        traceparent=event.traceparent,
    )


def request_of(row: Any) -> Event:
    """The request event that a job's row was made of, as :func:`job_row` made it: its inverse.

    Raises:
        pydantic.ValidationError: the row is not one of this version's.
    """
    data: dict[str, Any] = {name: getattr(row, name) for name in REQUESTED}
    if row.priority != _default_priority(row.source or SOURCE):
        data["priority"] = next(name for name, number in PRIORITIES.items() if number == row.priority)
    return Event(
        id=str(row.id),
        source=row.source or SOURCE,
        type=EventType.REQUESTED,
        time=row.created_at,
        traceparent=row.traceparent,
        data={name: value for name, value in data.items() if value is not None},
    )


def _default_priority(source: str) -> int:
    return PRIORITIES["low" if source.startswith(SCHEDULES) else "normal"]


def check(
    data: dict[str, Any],
    *,
    formats: Collection[str],
    datasets: Collection[str],
    addressing: AddressRules = ANYWHERE,
) -> ExportRequest:
    """Everything about a request that can be judged without the source database.

    Its recipients come back as mails carry them.

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
    if request.webhook is not None:
        addressing.webhook(request.webhook)
    if not request.recipients:
        return request
    return request.model_copy(update={"recipients": addressing.recipients(request.recipients)})


def _outcome(event: Event, status: Status, now: datetime, **known: Any) -> dict[str, Any]:
    data = LifecycleData(
        job_id=event.job_id, **event.identity.model_dump(), status=status, completed_at=now, **known
    )
    return data.model_dump(mode="json", exclude_none=True)


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)

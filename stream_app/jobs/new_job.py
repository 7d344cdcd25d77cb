"""Builds the record of a job from its request event, and the request event from the record."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from stream_app.jobs.queue_sql import PRIORITIES
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
    Name,
)

PUBLISH_TIMEOUT = timedelta(seconds=10)
"""Time in which a request, or an outcome that was decided at admission, must be published and applied.

Then it is published again.
"""

_NAME: TypeAdapter[str | None] = TypeAdapter(Name)

REQUEST_COLUMNS = (
    "user_id",
    "export_type",
    "format",
    "name",
    "filters",
    "columns",
    "options",
    "split",
    "consistency",
    "encrypt",
    "scope",
    "parameters",
    "claims",
    "recipients",
    "webhook",
    "destination",
)
"""Columns with the names of the request's fields. Two requests with equal columns are the same request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """The record of a job that is to be inserted. The fields are columns of ``export_jobs``.

    ``outcome`` is set where the job ends before it starts: its request is invalid, or was cancelled first.
    """

    id: UUID
    user_id: str
    export_type: str
    format: str
    name: str | None
    source: str
    traceparent: str | None
    created_at: datetime
    filters: Any
    columns: Any
    options: Any
    split: Any
    consistency: str | None
    encrypt: Any
    scope: str | None
    parameters: Any
    claims: Any
    recipients: Any
    webhook: str | None
    destination: str | None
    priority: int
    lease_until: datetime
    admitted_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    outcome: LifecycleData | None = None
    schedule_id: UUID | None = None
    run_at: datetime | None = None
    window: dict[str, Any] | None = None
    not_before: datetime | None = None
    rerun_of: UUID | None = None
    rights_at: datetime | None = None

    @property
    def event_outcome(self) -> LifecycleData | None:
        """The outcome to publish, with the trace of the request."""
        if self.outcome is None:
            return None
        return self.outcome.model_copy(update={"traceparent": self.traceparent})

    def cancelled(self) -> Self:
        """Return a copy of the job that is cancelled. It ends when it is admitted."""
        outcome = _outcome(self, Status.CANCELLED)
        return replace(self, cancel_requested_at=self.created_at, outcome=outcome)

    def failed(self, error: Rejected) -> Self:
        """Return a copy of the job that has failed with ``error``. It ends when it is admitted."""
        reason = JobError(code=error.code, message=str(error))
        return replace(self, outcome=_outcome(self, Status.FAILED, error=reason))

    def row(self) -> dict[str, Any]:
        """Return the values of the columns."""
        values = {name: getattr(self, name) for name in COLUMNS}
        if self.outcome is not None:
            values["outcome"] = self.outcome.model_dump(mode="json", exclude_none=True)
        return values


COLUMNS = tuple(field.name for field in fields(NewJob))


def new_job(event: Event, request: ExportRequest | None, *, now: datetime) -> NewJob:
    """Return the unadmitted job of a request event.

    Args:
        event: the request event.
        request: its data after validation, or ``None`` where that failed.
        now: the time by the database's clock.

    Raises:
        Unreadable: the event lacks what a job's record needs.
    """
    data, identity = event.data, event.identity
    recipients, priority = data.get("recipients"), _default_priority(event.source)
    if request is not None:
        recipients = request.recipients or None
        if "priority" in request.model_fields_set:
            priority = PRIORITIES[request.priority]
    return NewJob(
        id=event.job_id,
        user_id=identity.user_id,
        export_type=identity.export_type,
        format=identity.format,
        name=request.name if request is not None else valid_name(data.get("name")),
        source=event.source,
        traceparent=event.traceparent,
        created_at=now,
        filters=data.get("filters"),
        columns=data.get("columns"),
        options=data.get("options"),
        split=data.get("split"),
        consistency=_as_text(data.get("consistency")),
        encrypt=data.get("encrypt"),
        scope=_as_text(data.get("scope")),
        parameters=data.get("parameters") or None,
        claims=data.get("claims") or None,
        recipients=recipients,
        webhook=_as_text(data.get("webhook")),
        destination=_as_text(data.get("destination")),
        priority=priority,
        lease_until=now + PUBLISH_TIMEOUT,
    )


def with_creation_order(jobs: Sequence[NewJob]) -> list[NewJob]:
    """Return jobs of one time with times of creation that tell their order, some microseconds before it.

    The later one of two jobs must be known, for example where both are sent to the same path.
    """
    last = len(jobs) - 1
    return [
        replace(job, created_at=job.created_at - timedelta(microseconds=last - place))
        for place, job in enumerate(jobs)
    ]


def request_event_of(job: Any) -> Event:
    """Return the request event of a job, from its row or :class:`NewJob`: the inverse of :func:`new_job`.

    Raises:
        pydantic.ValidationError: another version of the service wrote the row.
    """
    data: dict[str, Any] = {name: getattr(job, name) for name in REQUEST_COLUMNS}
    if job.priority != _default_priority(job.source or SOURCE):
        data["priority"] = next(name for name, number in PRIORITIES.items() if number == job.priority)
    return Event(
        id=str(job.id),
        source=job.source or SOURCE,
        type=EventType.REQUESTED,
        time=job.created_at,
        traceparent=job.traceparent,
        data={name: value for name, value in data.items() if value is not None},
    )


def _default_priority(source: str) -> int:
    return PRIORITIES["low" if source.startswith(SCHEDULES) else "normal"]


def _outcome(job: NewJob, status: Status, *, error: JobError | None = None) -> LifecycleData:
    return LifecycleData(
        job_id=job.id,
        user_id=job.user_id,
        export_type=job.export_type,
        format=job.format,
        name=job.name,
        status=status,
        completed_at=job.created_at,
        error=error,
    )


def valid_name(value: object) -> str | None:
    """Return the name in the data of a request that is not validated, or ``None`` if it is not valid."""
    try:
        return _NAME.validate_python(value)
    except ValidationError:
        return None


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)

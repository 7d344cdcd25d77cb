"""Submits jobs: validates a request, builds the record of its job, and inserts the record.

All four ways to ask for an export use it: events on ``exports.requests``, ``POST /exports/jobs``, the
scheduler, and runs of a schedule beside its calendar.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from hashlib import blake2b
from typing import Any, Self
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.addresses import AddressRules
from stream_app.datasets.bundle_requests import check_bundle_request
from stream_app.datasets.caller import Caller
from stream_app.datasets.destinations import Destination, find_destination
from stream_app.datasets.encryption import check_encryption
from stream_app.datasets.format_choice import allowed_formats, check_format
from stream_app.datasets.models import Dataset
from stream_app.datasets.registry import Datasets
from stream_app.datasets.rights import check_rows, find_dataset
from stream_app.db.statements import Record
from stream_app.exports.files.passwords import FilePasswords
from stream_app.exports.formats.registry import FORMATS, MISSING
from stream_app.jobs.models import ExportJob
from stream_app.jobs.queue_sql import INDEX_ORDER, MARK_ADMITTED, PRIORITIES, SUBMIT_LOCK, insert_jobs
from stream_app.jobs.states import Status
from stream_app.settings import Settings
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

ANYWHERE = AddressRules()
"""Rules that allow mails to all domains and webhooks to all public hosts."""

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

_INSERT = {
    (admitted, limited): insert_jobs(COLUMNS, admitted=admitted, limited=limited)
    for admitted in (False, True)
    for limited in (False, True)
}


@dataclass(frozen=True, slots=True)
class RequestValidator:
    """Validates requests without the source database, and builds jobs from them.

    Attributes:
        formats: names of the formats.
        datasets: the datasets by name.
        addressing: where mails, chat messages and webhooks can go.
        destinations: returns the destinations by name.
        has_passwords: returns whether the service has a good secret for the passwords of zip archives.
    """

    formats: Collection[str]
    datasets: Mapping[str, Dataset]
    addressing: AddressRules = ANYWHERE
    has_passwords: Callable[[], bool] = lambda: False
    destinations: Callable[[], Mapping[str, Destination]] = dict

    @classmethod
    def of(cls, settings: Settings, datasets: Datasets) -> Self:
        """Return the validator with all formats, and with the rules of the settings."""
        return cls(
            FORMATS,
            datasets,
            AddressRules.of(settings),
            has_passwords=lambda: FilePasswords.of(settings) is not None,
            destinations=lambda: datasets.destinations,
        )

    def validate(self, data: dict[str, Any]) -> ExportRequest:
        """Return the request that ``data`` describes, with the addresses of its recipients in ASCII form.

        Its claims decide whether the user can ask for the dataset and use the scope.

        Columns and filters are checked later, against the table of the source database.

        Raises:
            Rejected: the request is invalid. The text names the field and what is allowed.
        """
        request = ExportRequest.parse(data)
        caller = Caller.of(request)
        dataset = find_dataset(self.datasets, request.export_type, caller)
        if request.format not in self.formats:
            reason = MISSING.get(request.format)
            raise Rejected(
                f"there is no format {request.format!r}" + (f": {reason}" if reason else ""),
                code="unknown_format",
                field="format",
                allowed=sorted(allowed_formats(dataset, self.formats)),
            )
        check_format(dataset, request.format, self.formats)
        check_rows(dataset, request.scope, caller)
        check_bundle_request(dataset, request)
        is_encrypted = request.encrypt is not None
        check_encryption(dataset, request.encrypt, has_passwords=is_encrypted and self.has_passwords())
        if request.webhook is not None:
            self.addressing.webhook(request.webhook)
        if request.destination is not None:
            find_destination(self.destinations(), request.destination, caller, request.export_type)
        if not request.recipients:
            return request
        return request.model_copy(update={"recipients": self.addressing.recipients(request.recipients)})

    def job(self, event: Event, *, now: datetime) -> NewJob:
        """Return the unadmitted job of a request event. The job of an invalid request has failed.

        Raises:
            Unreadable: the event lacks what a job's record needs.
        """
        try:
            return new_job(event, self.validate(event.data), now=now)
        except Rejected as error:
            return new_job(event, None, now=now).failed(error)


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
        name=request.name if request is not None else _name_of(data.get("name")),
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


def in_order(jobs: Sequence[NewJob]) -> list[NewJob]:
    """Return jobs of one time with times of creation that tell their order, some microseconds before it.

    The later one of two jobs must be known, for example where both are sent to the same path.
    """
    last = len(jobs) - 1
    return [
        replace(job, created_at=job.created_at - timedelta(microseconds=last - place))
        for place, job in enumerate(jobs)
    ]


async def submit(
    connection: AsyncConnection, jobs: Sequence[NewJob], *, user_limit: int | None = None
) -> list[LifecycleData]:
    """Insert jobs: either all of them admitted, or none. A job that is on record stays as it is.

    An admitted job also admits the unadmitted record of the same job. On commit idle workers are notified of
    admitted jobs.

    Args:
        connection: one in a transaction, or one with autocommit.
        jobs: the jobs.
        user_limit: insert nothing if the user of the job has this many unfinished jobs. The transaction
            must hold the lock of :func:`submit_lock`.

    Returns:
        The ``export.accepted`` data of the jobs that were inserted or admitted.

    Raises:
        Locked: another transaction holds the record of one of the jobs.
    """
    if not jobs:
        return []
    values: dict[str, Any] = {"jobs": to_json([job.row() for job in jobs]).decode()}
    if user_limit is not None:
        values |= {"user_id": jobs[0].user_id, "user_limit": user_limit}
    statement = _INSERT[jobs[0].admitted_at is not None, user_limit is not None]
    return [accepted_row(row) for row in await statement.fetch(connection, values)]


def accepted_row(row: Record) -> LifecycleData:
    """Return the data of the ``export.accepted`` event of a job's row."""
    return LifecycleData(
        job_id=row.id,
        user_id=row.user_id,
        export_type=row.export_type,
        format=row.format,
        name=row.name,
        status=Status.PENDING,
        traceparent=row.traceparent,
    )


async def mark_admitted(connection: AsyncConnection, ids: Sequence[UUID]) -> None:
    """Admit jobs, once Kafka has their ``export.accepted``: from then on they can be claimed."""
    await MARK_ADMITTED.fetch(connection, {"ids": list(ids)})


class SubmitResult(Enum):
    """The result of submitting a job with a limit: inserted, known before, or above the limit."""

    NEW = "new"
    KNOWN = "known"
    TOO_MANY = "too_many"


async def submit_within_limit(connection: AsyncConnection, job: NewJob, *, user_limit: int) -> SubmitResult:
    """:func:`submit` an unadmitted job, unless its user has ``user_limit`` unfinished jobs.

    The transaction must hold the lock of :func:`submit_lock`.
    """
    if await submit(connection, [job], user_limit=user_limit):
        return SubmitResult.NEW
    is_known = select(ExportJob.id).where(ExportJob.id == job.id)
    return SubmitResult.KNOWN if await connection.scalar(is_known) is not None else SubmitResult.TOO_MANY


def submit_lock(user_id: str) -> str:
    """Return the SQL that locks the user's submissions until the transaction ends.

    Under this lock the number of the user's unfinished jobs, or of their schedules, is compared with a limit.
    The SQL also makes the settings of the transaction that this needs.
    """
    number = int.from_bytes(
        blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=4).digest(), signed=True
    )
    return f"SELECT pg_advisory_xact_lock({SUBMIT_LOCK}, {number}), {INDEX_ORDER};"


def accepted_data(event: Event) -> LifecycleData:
    """Return the data of the ``export.accepted`` event of a request."""
    return LifecycleData(
        job_id=event.job_id,
        **event.identity.model_dump(),
        name=_name_of(event.data.get("name")),
        status=Status.PENDING,
        traceparent=event.traceparent,
    )


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


def _name_of(value: object) -> str | None:
    """Return the name in the data of a request that is not validated, or ``None`` if it is not valid."""
    try:
        return _NAME.validate_python(value)
    except ValidationError:
        return None


def _as_text(value: object) -> str | None:
    return None if value is None else str(value)

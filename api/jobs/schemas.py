"""Bodies of requests and responses about jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Row

from api.error_meanings import meaning_of
from stream_app.jobs.download_names import download_name
from stream_app.jobs.file_warnings import warnings_of
from stream_app.jobs.job_files import has_several_files
from stream_app.jobs.models import ExportJob
from stream_app.jobs.states import Status
from streaming_exporter.events import (
    DestinationName,
    Encrypt,
    JobError,
    Name,
    Options,
    Scope,
    Split,
    Values,
    Word,
)
from streaming_exporter.validation import explained

JOB_EXAMPLE: dict[str, Any] = {
    "export_job_id": "4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10",
    "status": "completed",
    "user_id": "user-17",
    "export_type": "ledger",
    "format": "csv",
    "name": "Ledger October",
    "schedule_id": None,
    "run_at": None,
    "window": None,
    "scope": "own",
    "filters": {"kind": "proof"},
    "columns": ["id", "kind", "created_at"],
    "options": {"compression": "gzip"},
    "attempt": 1,
    "row_count": 1204,
    "estimated_rows": 1180,
    "file_size": 20311,
    "file_name": "Ledger-October-2026-11-24.csv.gz",
    "file_count": 1,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "warnings": {"guarded_formulas": 3},
    "created_at": "2026-11-24T06:00:00Z",
    "started_at": "2026-11-24T06:00:00.02Z",
    "completed_at": "2026-11-24T06:00:00.31Z",
    "expires_at": "2026-12-01T06:00:00.31Z",
    "cancel_requested": False,
    "rerun_of": None,
    "encrypt": None,
    "destination": None,
    "download_url": "/exports/jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10/download",
    "files_url": "/exports/jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10/files",
}


RECIPIENTS = (
    "Mail addresses, and chats (`slack:` or `teams:` and the URL of an incoming webhook), that get a message"
)


class OrderOptions(Options):
    """Options of a request. An unknown option is an error here, but events ignore it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OrderSplit(Split):
    """How the rows are divided between several files. An unknown field is an error here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OrderEncrypt(Encrypt):
    """How the files are encrypted: exactly one of the fields. An unknown field is an error here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Order(BaseModel):
    """A request for an export.

    An unknown field is an error, because a misspelt `filters` would export too many rows.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "export_type": "ledger",
                "format": "csv",
                "filters": {"kind": "proof", "created_at": {"gte": "2026-01-01", "lt": "2026-02-01"}},
                "columns": ["id", "kind", "created_at"],
                "options": {"compression": "gzip"},
            }
        },
    )

    export_type: Annotated[Word, Field(description="Name of a dataset or bundle of GET /exports/datasets")]
    format: Annotated[Word, Field(description="Name of a format, as GET /exports/datasets lists it")]
    name: Name = None
    filters: Annotated[
        Values | None,
        Field(
            description="`{column: value}` or `{column: {operator: value}}`. A date is its whole day, by "
            "`options.timezone`, or else the time zone of the dataset, or else UTC",
        ),
    ] = None
    columns: Annotated[list[str] | None, Field(min_length=1, max_length=1600)] = None
    options: OrderOptions | None = None
    split: Annotated[
        OrderSplit | None, Field(description="Write several files, each of which is complete in itself")
    ] = None
    consistency: Annotated[
        Literal["snapshot", "part"] | None,
        Field(
            description="`snapshot`: all files have the data of one moment. `part`: each part of a large "
            "export with `split` has its own moment, and finished parts are kept if the export is "
            "interrupted, which suits data that is only appended. Default: `snapshot`"
        ),
    ] = None
    encrypt: Annotated[
        OrderEncrypt | None,
        Field(
            description="Encrypt the files: `age` for public keys, or `zip_password` for a zip archive with "
            "a password, which `POST /exports/jobs/{job_id}:password` shows once"
        ),
    ] = None
    scope: Annotated[
        Scope | None, Field(description="`own`, `all`, or a scope of the dataset. Default: `own`")
    ] = None
    parameters: Annotated[Values | None, Field(description="Values of the parameters of the dataset")] = None
    recipients: Annotated[
        list[str] | None, Field(max_length=50, description=f"{RECIPIENTS} when the job ends")
    ] = None
    webhook: Annotated[
        str | None, Field(max_length=2000, description="An https URL that is called when the job ends")
    ] = None
    destination: Annotated[
        DestinationName | None,
        Field(description="Name of a destination that the finished files are also sent to"),
    ] = None


def key_header(description: str) -> Any:
    """Return the header ``Idempotency-Key`` with a description."""
    return Header(
        pattern=explained(r"^[\x21-\x7e]+$", "visible ASCII characters without spaces"),
        max_length=255,
        description=description,
    )


IdempotencyKey = Annotated[
    str | None, key_header("Makes the call repeatable: the same call with the same key is the same job")
]

Prefer = Annotated[
    list[str] | None,
    Header(description="`wait=N`: answer when the job has ended, at the latest after N seconds (RFC 7240)"),
]

JOB_RECORDED: dict[str, Any] = {
    "description": "The job is recorded",
    "headers": {"Location": {"description": "The job", "schema": {"type": "string"}}},
}
"""The response 202 of a call that submits a job."""


class Accepted(BaseModel):
    """The job of a request."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"export_job_id": JOB_EXAMPLE["export_job_id"], "status": "pending"}}
    )

    export_job_id: UUID
    status: Status


class Estimate(BaseModel):
    """The estimated size of an export.

    ``exact``: the rows were counted. ``at_least``: there are this many rows or more. Otherwise ``rows`` is an
    estimate. ``bytes`` is null if the sample took too long. ``fits`` is false if the format cannot hold this
    many rows. Then ``reason`` explains what to do.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "rows": 120_000,
                "bytes": 54_213_004,
                "exact": False,
                "at_least": False,
                "row_limit": 100_000,
                "fits": False,
                "reason": "A pdf file can have at most 100,000 rows. "
                "Limit the export with filters, divide it into several files, or choose another format",
            }
        }
    )

    rows: int
    bytes: int | None
    exact: bool
    at_least: bool = False
    row_limit: int | None
    fits: bool
    reason: str | None


SHOWN_TO_OPERATORS = frozenset(
    {
        "export_job_id", "status", "user_id", "export_type", "format", "scope", "split", "consistency",
        "attempt", "row_count", "estimated_rows", "file_size", "file_count", "created_at", "started_at",
        "completed_at", "expires_at", "cancel_requested", "rerun_of", "warnings", "schedule_id", "run_at",
    }
)  # fmt: skip
"""The fields of a job that operators of the service can see. All others are closed, also new ones."""


class JobView(BaseModel):
    """A job. ``row_count`` grows while the job is processed. Sizes are in bytes.

    A job with several files has no ``download_url``. Its ``row_count`` and ``file_size`` are totals, and
    ``file_name`` and ``sha256`` are those of the manifest beside the files. ``warnings`` has the numbers of
    values that are not in the files as they are in the database, by the kind of the change, such as
    ``cut_cells``; it is empty if there are none. ``rerun_of`` is the job whose request this one repeats.

    ``encrypt`` is how the files are encrypted: their names, sizes and checksums are those of the encrypted
    files. ``destination`` is where the files are also sent to; the deliveries of the job tell how far.

    A run of a schedule has ``schedule_id``, the time ``run_at`` at which it was due, and the ``window`` of
    time whose rows it has, if the schedule has one.
    """

    model_config = ConfigDict(json_schema_extra={"example": JOB_EXAMPLE})

    export_job_id: UUID
    status: Status
    user_id: str
    export_type: str
    format: str
    name: str | None
    schedule_id: UUID | None
    run_at: datetime | None
    window: Any
    scope: str
    filters: Any
    columns: Any
    options: Any
    split: Any
    encrypt: Any
    destination: str | None
    consistency: str | None
    parameters: Any
    attempt: int
    row_count: int | None
    estimated_rows: int | None
    file_size: int | None
    file_name: str | None
    file_count: int | None
    sha256: str | None
    warnings: dict[str, int]
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    expires_at: datetime | None
    cancel_requested: bool
    rerun_of: UUID | None
    download_url: str | None
    files_url: str | None
    error: JobError | None

    @classmethod
    def of(cls, job: ExportJob | Row[Any], now: datetime) -> "JobView":
        """Return the view of a job's record or row; ``now`` is the time by the database's clock."""
        status = Status(job.status)
        if status is Status.COMPLETED and is_expired(job, now):
            status = Status.EXPIRED
        is_completed = status is Status.COMPLETED
        several, here = has_several_files(job), f"/exports/jobs/{job.id}"
        return cls.model_construct(
            export_job_id=job.id,
            status=status,
            user_id=job.user_id,
            export_type=job.export_type,
            format=job.format,
            name=job.name,
            schedule_id=job.schedule_id,
            run_at=job.run_at,
            window=job.window,
            scope=job.scope or "own",
            filters=job.filters,
            columns=job.columns,
            options=job.options,
            split=job.split,
            encrypt=job.encrypt,
            destination=job.destination,
            consistency=job.consistency,
            parameters=job.parameters,
            attempt=job.attempt,
            row_count=job.row_count,
            estimated_rows=job.estimated_rows,
            file_size=job.file_size,
            file_name=job.file_name and download_name(job.file_name, job.export_type, job.name),
            file_count=job.file_count if several else 1 if job.file_path is not None else None,
            sha256=job.sha256,
            warnings=warnings_of(job.manifest),
            created_at=job.created_at,
            started_at=job.started_at,
            completed_at=job.completed_at,
            expires_at=job.expires_at,
            cancel_requested=job.cancel_requested_at is not None,
            rerun_of=job.rerun_of,
            download_url=f"{here}/download"
            if is_completed and (not several or job.file_count == 1)
            else None,
            files_url=f"{here}/files" if is_completed else None,
            error=JobError(code=job.error_code or "error", message=job.error_message or "")
            if status is Status.FAILED or (status is Status.PENDING and job.error_code is not None)
            else None,
        )

    def without_data(self) -> "JobView":
        """Return the view for operators of the service: without the file and without texts of the user."""
        error = self.error and JobError(code=self.error.code, message=meaning_of(self.error.code))
        closed = dict.fromkeys(type(self).model_fields.keys() - SHOWN_TO_OPERATORS)
        return self.model_copy(update={**closed, "error": error})


JOB_ENDED: dict[str, Any] = {
    "description": "The job has ended within the time that `Prefer: wait=N` gave it",
    "model": JobView,
    "headers": {
        "Location": {"description": "The job", "schema": {"type": "string"}},
        "Preference-Applied": {"schema": {"type": "string"}},
    },
}
"""The response 200 of a call that waited for the end of its job."""


class JobPage(BaseModel):
    """Jobs, newest first. ``next_cursor`` is the cursor of the page with older ones."""

    jobs: list[JobView]
    next_cursor: str | None


def is_expired(job: ExportJob | Row[Any], now: datetime) -> bool:
    """Return whether the file has expired at ``now``, even if it still exists."""
    return job.expires_at is not None and job.expires_at <= now

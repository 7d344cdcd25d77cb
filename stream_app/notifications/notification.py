"""The content of one notification, read from the outbox and from the record of its job. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from stream_app.jobs.download_names import download_name
from stream_app.jobs.file_warnings import warnings_of
from stream_app.jobs.states import Status
from stream_app.messages.catalogue import DEFAULT, known_language
from stream_app.storage.manifest import MANIFEST

REVOKED = "the link was revoked"


@dataclass(frozen=True, slots=True)
class ScheduleSummary:
    """What mails say about the schedule of a job. All values are those of the schedule's row."""

    name: str | None
    schedule: str
    day: int | None
    time_of_day: str | None
    timezone: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """The recipient of a delivery. The recipient can unsubscribe from ``topic``.

    ``user_id`` and ``dataset`` are those of the job, ``language`` is that of its mails. They are unknown if
    the job's record was deleted. ``schedule_summary`` is ``None`` if the job has no
    schedule, or a deleted one.
    """

    job_id: UUID
    address: str
    topic: str
    revoked_at: datetime | None
    user_id: str = ""
    dataset: str = ""
    language: str | None = None
    schedule_summary: ScheduleSummary | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Make the recipient from a row of the outbox, with its job and its schedule."""
        return cls(
            row["job_id"],
            row["address"],
            row["topic"],
            row["revoked_at"],
            user_id=row["user_id"] or "",
            dataset=row["export_type"] or "",
            language=requested_language(row["options"]),
            schedule_summary=_schedule_summary(row),
        )


@dataclass(frozen=True, slots=True)
class RequestSummary:
    """How a job was requested. ``manifest`` describes the export, ``claims`` are those of its user."""

    requested_at: datetime
    run_at: datetime | None
    schedule_id: UUID | None
    claims: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self | None:
        """Make it from a row that a claim returns; ``None`` if the record of the job was deleted."""
        if row["id"] is None:
            return None
        return cls(
            row["created_at"], row["run_at"], row["schedule_id"], row["claims"] or {}, row["manifest"] or {}
        )


@dataclass(frozen=True, slots=True)
class Notification:
    """The content of one claimed delivery: how one job ended. ``file_size`` is in bytes.

    ``skip_reason`` is why the delivery must not be sent, ``paused`` why the job's schedule is paused.
    """

    delivery_id: UUID
    attempt: int
    address: str
    due_at: datetime
    job_id: UUID
    event: str
    user_id: str
    export_type: str
    format: str
    host: str = ""
    """Host and port of a webhook."""
    skip_reason: str | None = None
    row_count: int | None = None
    file_size: int | None = None
    file_name: str | None = None
    file_path: str | None = None
    file_count: int | None = None
    content_type: str | None = None
    sha256: str | None = None
    as_of: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    filters: Any = None
    parameters: Any = None
    columns: Any = None
    """What was requested. The record of a refused request can have anything here."""
    scope: str | None = None
    schedule_summary: ScheduleSummary | None = None
    """The schedule of the job."""
    window: tuple[str, str] | None = None
    window_zone: str | None = None
    is_gap: bool = False
    """Whether an earlier run has lost the window. The job exports it in addition to the regular run."""
    warnings: Mapping[str, int] = field(default_factory=dict)
    error_code: str | None = None
    error_message: str | None = None
    paused: str | None = None
    traceparent: str | None = None
    name: str | None = None
    """The name that the user gave the export: any one line of text."""
    label: str | None = None
    """The name of the dataset for people, if the file has labels."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels of columns in the file, by their names."""
    options: Any = None
    """The options of the request, which can be invalid."""
    timezone: str | None = None
    """The time zone of the file."""
    encryption: Literal["age", "zip_password"] | None = None
    """How the file is encrypted."""
    requested: RequestSummary | None = None
    """What deliveries to destinations need to know of the request."""
    sent_to: str | None = None
    """The destination to which the files have been sent already."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """What earlier attempts of the delivery have done."""

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Make the notification from a row that a claim returns."""
        job = {
            name: row[name]
            for name in (
                "row_count",
                "file_size",
                "file_name",
                "file_path",
                "file_count",
                "content_type",
                "sha256",
                "as_of",
                "completed_at",
                "expires_at",
                "error_code",
                "error_message",
                "paused",
                "name",
                "traceparent",
                "filters",
                "parameters",
                "columns",
                "scope",
                "sent_to",
            )
        }
        return cls(
            delivery_id=row["delivery_id"],
            attempt=row["attempts"],
            address=row["address"],
            due_at=row["due_at"],
            job_id=row["job_id"],
            event=row["event"],
            user_id=row["user_id"] or "",
            export_type=row["export_type"] or "",
            format=row["format"] or "",
            host=row["host"],
            skip_reason=_skip_reason(row),
            window=_window(row["window"]),
            window_zone=_text_of(row["window"], "timezone"),
            is_gap=isinstance(row["window"], dict) and row["window"].get("gap") is True,
            schedule_summary=_schedule_summary(row),
            warnings=warnings_of(row["manifest"]),
            label=_text_of(row["manifest"], "label"),
            labels=_labels(row["manifest"]),
            options=row["options"],
            timezone=_text_of(row["manifest"], "timezone"),
            encryption=_encryption(row["encrypt"]),
            requested=RequestSummary.from_row(row),
            progress=row["progress"] or {},
            **job,
        )

    @property
    def language(self) -> str:
        """The language of the mail: that of the request, if there are messages in it."""
        return requested_language(self.options) or DEFAULT

    @property
    def failed(self) -> bool:
        """Return whether the export failed, so there is no file."""
        return self.event == Status.FAILED

    @property
    def has_several_files(self) -> bool:
        """Return whether the link leads to a list of files."""
        return (self.file_path or "").endswith(f"/{MANIFEST}") and self.file_count != 1

    @property
    def download_name(self) -> str | None:
        """The name under which people save the file. At destinations it has its own name."""
        return self.file_name and download_name(self.file_name, self.export_type, self.name)

    @property
    def empty(self) -> bool:
        """Return whether the file has no rows."""
        return not self.failed and self.row_count == 0


def _skip_reason(row: Mapping[str, Any]) -> str | None:
    if row["id"] is None:
        return "the record of the job was deleted"
    if row["event"] == Status.COMPLETED and row["gone"]:
        return "the file has expired"
    if row["revoked_at"] is not None:
        return REVOKED
    if row["unsubscribed"]:
        return "the recipient has unsubscribed"
    if row["suppressed"] is not None:
        return f"the mail server has refused this address before: {row['suppressed']}"
    return None


def requested_language(options: object) -> str | None:
    """Return the language of ``options.language``, or else of ``options.locale``, as files have it.

    None if there are no messages in it. Stored options can be invalid.
    """
    if not isinstance(options, Mapping):
        return None
    return known_language(options.get("language") or options.get("locale"))


def _schedule_summary(row: Mapping[str, Any]) -> ScheduleSummary | None:
    """Return the schedule of a row of the outbox."""
    if row["schedule"] is None:
        return None
    return ScheduleSummary(
        row["schedule_name"], row["schedule"], row["schedule_day"], row["time_of_day"], row["schedule_zone"]
    )


def _text_of(manifest: object, name: str) -> str | None:
    found = manifest.get(name) if isinstance(manifest, dict) else None
    return found if isinstance(found, str) else None


def _labels(manifest: object) -> Mapping[str, str]:
    found = manifest.get("labels") if isinstance(manifest, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name: label for name, label in found.items() if isinstance(label, str)}


def _encryption(encrypt: object) -> Literal["age", "zip_password"] | None:
    """Return the kind of the encryption that a job's row has."""
    if not isinstance(encrypt, Mapping):
        return None
    return "zip_password" if encrypt.get("zip_password") else "age"


def _window(window: object) -> tuple[str, str] | None:
    if not isinstance(window, dict) or not {"from", "to"} <= window.keys():
        return None
    return str(window["from"]), str(window["to"])

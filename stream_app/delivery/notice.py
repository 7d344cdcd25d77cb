"""What a message is about. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from stream_app.jobs.states import Status


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a message went to. ``topic`` is what they can unsubscribe from."""

    job_id: UUID
    address: str
    topic: str
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Notice:
    """One claimed message: how one job ended, for one address. ``file_size`` is bytes.

    ``unwanted`` says why it must not be sent at all, ``paused`` why the job's schedule makes no more.
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
    unwanted: str | None = None
    row_count: int | None = None
    file_size: int | None = None
    file_name: str | None = None
    file_path: str | None = None
    content_type: str | None = None
    sha256: str | None = None
    as_of: datetime | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    window: tuple[str, str] | None = None
    error_code: str | None = None
    error_message: str | None = None
    paused: str | None = None
    traceparent: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the ledger's claim."""
        job = {
            name: row[name]
            for name in (
                "row_count",
                "file_size",
                "file_name",
                "file_path",
                "content_type",
                "sha256",
                "as_of",
                "completed_at",
                "expires_at",
                "error_code",
                "error_message",
                "paused",
                "traceparent",
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
            unwanted=_unwanted(row),
            window=_window(row["window"]),
            **job,
        )

    @property
    def failed(self) -> bool:
        """Whether there is no file because the export failed."""
        return self.event == Status.FAILED

    @property
    def empty(self) -> bool:
        """Whether the file has no rows."""
        return not self.failed and self.row_count == 0


def _unwanted(row: Mapping[str, Any]) -> str | None:
    if row["id"] is None:
        return "the job's record is gone"
    if row["event"] == Status.COMPLETED and row["gone"]:
        return "the file is gone"
    if row["revoked_at"] is not None:
        return "its link was revoked"
    if row["unsubscribed"]:
        return "the recipient has unsubscribed"
    if row["suppressed"] is not None:
        return f"the address was refused before: {row['suppressed']}"
    return None


def _window(window: object) -> tuple[str, str] | None:
    if not isinstance(window, dict) or not {"from", "to"} <= window.keys():
        return None
    return str(window["from"]), str(window["to"])

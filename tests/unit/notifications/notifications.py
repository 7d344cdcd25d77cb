"""Notifications for tests."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from stream_app.notifications.notification import Notification

AT = datetime(2026, 11, 24, 6, 0, 2, tzinfo=UTC)


def notification(**changes: Any) -> Notification:
    """Return the notification of a completed export of 3,120 rows, with changes."""
    known: dict[str, Any] = {
        "delivery_id": UUID("7d4cbe2b-0d06-4ef3-a2a9-3f8a1e6bb5b1"),
        "attempt": 1,
        "address": "ops@example.com",
        "due_at": AT,
        "job_id": UUID("4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10"),
        "event": "completed",
        "user_id": "user-17",
        "export_type": "ledger",
        "format": "csv",
        "row_count": 3_120,
        "file_size": 401_223,
        "file_name": "ledger-2026-11-24.csv",
        "file_path": "jobs/4f1c7a52-6f0e-4b0e-9d5b-0f6f5d1f3a10/1/ledger-2026-11-24.csv",
        "content_type": "text/csv; charset=utf-8",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "as_of": datetime(2026, 11, 24, 6, tzinfo=UTC),
        "completed_at": AT,
        "expires_at": datetime(2026, 12, 1, 6, 0, 2, tzinfo=UTC),
    }
    return Notification(**known | changes)


def failure(**changes: Any) -> Notification:
    """Return the notification of a failed export."""
    nothing = dict.fromkeys(("row_count", "file_size", "file_name", "file_path", "content_type", "sha256"))
    error = {"error_code": "unknown_column", "error_message": "columns.1: there is no column 'colour'"}
    return notification(**nothing | {"event": "failed", "as_of": None, "expires_at": None} | error | changes)

"""Opaque cursors over (created at, id). Pure."""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from streaming_exporter.errors import Rejected

Position = tuple[datetime, UUID]


def encode(position: Position) -> str:
    """A text for URLs that stands for the position."""
    created_at, job_id = position
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {job_id}".encode()).decode().rstrip("=")


def decode(cursor: str) -> Position:
    """The position that :func:`encode` was given, its time in UTC.

    Raises:
        Rejected: no such text came from there.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        moment, _, job_id = text.partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError("no time zone")
        return created_at.astimezone(UTC), UUID(job_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise Rejected(
            "not a cursor of this API; take next_cursor from the page before, or leave it out",
            code="bad_cursor",
            field="cursor",
        ) from error

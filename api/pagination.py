"""Pages of lists, newest first, and the opaque cursor of the next page: (created at, id). Pure."""

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar
from uuid import UUID

from streaming_exporter.errors import Rejected

PageKey = tuple[datetime, UUID]
"""``created_at`` and ``id`` of the last item of a page."""


class Listed(Protocol):
    """An item of a list."""

    @property
    def id(self) -> UUID: ...

    @property
    def created_at(self) -> datetime: ...


Item = TypeVar("Item", bound=Listed)


def page_of(items: Sequence[Item], limit: int) -> tuple[Sequence[Item], str | None]:
    """Return the first ``limit`` items, and the cursor of the next page if there are more items."""
    shown = items[:limit]
    if len(items) <= limit:
        return shown, None
    return shown, encode((shown[-1].created_at, shown[-1].id))


def encode(key: PageKey) -> str:
    """Return the cursor of the page that begins after ``key``; it is safe in URLs."""
    created_at, item_id = key
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {item_id}".encode()).decode().rstrip("=")


def decode(cursor: str) -> PageKey:
    """Return the key of a cursor, with its time in UTC.

    Raises:
        Rejected: :func:`encode` did not make this cursor.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        moment, _, item_id = text.partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError("no time zone")
        return created_at.astimezone(UTC), UUID(item_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise Rejected(
            "this is not a cursor of this API; use next_cursor of the page before, or leave the cursor out",
            code="bad_cursor",
            field="cursor",
        ) from error

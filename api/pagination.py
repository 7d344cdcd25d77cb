"""Pages of lists, and the opaque cursor of the next page: (created at, id), or the number of a file. Pure."""

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


def encode_number(number: int) -> str:
    """Return the cursor of the page that begins after item ``number``; it is safe in URLs."""
    return base64.urlsafe_b64encode(f"number {number}".encode()).decode().rstrip("=")


def decode_number(cursor: str) -> int:
    """Return the number that :func:`encode_number` was given.

    Raises:
        Rejected: :func:`encode_number` did not make this cursor.
    """
    try:
        word, _, number = _text(cursor).partition(" ")
        if word != "number" or not number.isascii() or not number.isdigit() or len(number) > 9:
            raise ValueError("no number")
        return int(number)
    except (ValueError, binascii.Error) as error:
        raise _bad_cursor() from error


def decode(cursor: str) -> PageKey:
    """Return the key of a cursor, with its time in UTC.

    Raises:
        Rejected: :func:`encode` did not make this cursor.
    """
    try:
        moment, _, item_id = _text(cursor).partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError("no time zone")
        return created_at.astimezone(UTC), UUID(item_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise _bad_cursor() from error


def _text(cursor: str) -> str:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()


def _bad_cursor() -> Rejected:
    return Rejected(
        "this is not a cursor of this API; use next_cursor of the page before, or leave the cursor out",
        code="bad_cursor",
        field="cursor",
    )

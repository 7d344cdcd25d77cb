"""Values in the types that libraries for workbooks accept."""

from datetime import datetime
from typing import Any
from uuid import UUID


def cells(row: Any) -> list[Any]:
    """Convert the values that Excel does not have: times with a zone, and UUIDs."""
    return [_cell(value) for value in row.values()]


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    return str(value) if isinstance(value, UUID) else value

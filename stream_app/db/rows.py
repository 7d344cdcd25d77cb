"""Converts the rows of a batch one by one: a row that cannot be converted does not fail the others."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import structlog
from sqlalchemy import Row

log = structlog.get_logger(__name__)

Read = TypeVar("Read")


def each_readable(rows: Iterable[Row[Any]], read: Callable[[Row[Any]], Read]) -> Iterator[Read]:
    """Yield ``read(row)`` for each row. A row that raises an error is logged and skipped.

    It is for batches that are already committed: a newer version can write values that this one cannot read.
    """
    for row in rows:
        try:
            yield read(row)
        except Exception as error:
            log.warning("row.skipped", job_id=str(getattr(row, "id", "")), error=str(error))

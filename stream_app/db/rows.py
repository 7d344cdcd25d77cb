"""Rows of a batch, read one by one: one that cannot be read fails no other."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import structlog
from sqlalchemy import Row

log = structlog.get_logger(__name__)

Read = TypeVar("Read")


def each_readable(rows: Iterable[Row[Any]], read: Callable[[Row[Any]], Read]) -> Iterator[Read]:
    """What ``read`` makes of each row; a row that it raises for is logged and left out.

    For batches whose effect is committed already. A newer version writes what this one does not know.
    """
    for row in rows:
        try:
            yield read(row)
        except Exception as error:
            log.warning("row.skipped", job_id=str(getattr(row, "id", "")), error=str(error))

"""Counts deliveries that wait or failed, for operators and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, transaction

TIMEOUT = "5s"

COUNT = text(
    """
    SELECT count(*) FILTER (WHERE status IN ('pending', 'sending')) AS waiting,
           coalesce(extract(epoch FROM now() - min(created_at) FILTER (
               WHERE status IN ('pending', 'sending'))), 0)::float AS oldest_seconds,
           count(*) FILTER (WHERE status = 'failed' AND finished_at > now() - interval '7 days') AS failed,
           count(*) FILTER (WHERE status = 'ambiguous') AS ambiguous
    FROM deliveries
    """
)

_LOST = text(
    """
    SELECT job_id AS export_job_id, user_id, channel, status, attempts, finished_at FROM deliveries
    WHERE status = 'failed' AND finished_at > now() - interval '7 days' OR status = 'ambiguous'
    ORDER BY finished_at DESC NULLS LAST, id LIMIT 50
    """
)


@dataclass(frozen=True, slots=True)
class DeliveryStatistics:
    """Numbers of deliveries: those that wait, those that failed in seven days, and ambiguous ones."""

    waiting: int
    oldest_seconds: float
    failed: int
    ambiguous: int


async def count_deliveries(engine: AsyncEngine) -> DeliveryStatistics:
    """Count the deliveries.

    Raises:
        Retryable: the database is away or too slow.
    """
    async with transaction(
        autocommitting(engine), f"SET LOCAL statement_timeout = '{TIMEOUT}'"
    ) as connection:
        return DeliveryStatistics(**(await connection.execute(COUNT)).one()._mapping)


async def list_lost(engine: AsyncEngine) -> Sequence[dict[str, Any]]:
    """Return the newest deliveries that failed in seven days, or of which it is not known; no addresses.

    Raises:
        Retryable: the database is away or too slow.
    """
    async with transaction(
        autocommitting(engine), f"SET LOCAL statement_timeout = '{TIMEOUT}'"
    ) as connection:
        return [dict(row._mapping) for row in await connection.execute(_LOST)]

"""Counts deliveries that wait or failed, for operators and metrics."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, transaction

TIMEOUT = "5s"

_COUNT = text(
    """
    SELECT count(*) FILTER (WHERE status IN ('pending', 'sending')) AS waiting,
           coalesce(extract(epoch FROM now() - min(created_at) FILTER (
               WHERE status IN ('pending', 'sending'))), 0)::float AS oldest_seconds,
           count(*) FILTER (WHERE status = 'failed' AND finished_at > now() - interval '7 days') AS failed,
           count(*) FILTER (WHERE status = 'ambiguous') AS ambiguous
    FROM deliveries
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
        return DeliveryStatistics(**(await connection.execute(_COUNT)).one()._mapping)

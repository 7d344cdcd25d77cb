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
    WITH waiting AS (
        SELECT count(*) AS number, min(created_at) AS oldest FROM deliveries WHERE status = 'pending'
        UNION ALL
        SELECT count(*), min(created_at) FROM deliveries WHERE status = 'sending'
    )
    SELECT (SELECT sum(number) FROM waiting)::bigint AS waiting,
           coalesce(extract(epoch FROM now() - (SELECT min(oldest) FROM waiting)), 0)::float
               AS oldest_seconds,
           (SELECT count(*) FROM deliveries
            WHERE status = 'failed' AND finished_at > now() - interval '7 days') AS failed,
           (SELECT count(*) FROM deliveries WHERE status = 'ambiguous') AS ambiguous
    """
)
"""Each state is counted by a partial index: nearly all rows of the table were sent, and are not read."""

LOST = text(
    """
    SELECT export_job_id, user_id, channel, status, attempts, finished_at FROM (
        (SELECT job_id AS export_job_id, user_id, channel, status, attempts, finished_at, id FROM deliveries
         WHERE status = 'failed' AND finished_at > now() - interval '7 days'
         ORDER BY finished_at DESC, id LIMIT 50)
        UNION ALL
        (SELECT job_id, user_id, channel, status, attempts, finished_at, id FROM deliveries
         WHERE status = 'ambiguous'
         ORDER BY finished_at DESC, id LIMIT 50)
    ) AS lost
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
        return [dict(row._mapping) for row in await connection.execute(LOST)]

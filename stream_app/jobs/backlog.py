"""What waits and what runs, counted for those who watch the service."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.jobs.database import transaction, without_transactions
from stream_app.jobs.models import RUNNING, WAITING

# Each half goes through its partial index: what has ended costs nothing. A job that was tried counts from
# when it was asked for, one that a schedule starts later from when it may start.
BACKLOG = text(
    f"""
    SELECT status, export_type, format, count(*) AS jobs,
           extract(epoch FROM now() - min(
               CASE WHEN attempt > 0 THEN created_at ELSE greatest(created_at, not_before) END
           )) AS oldest
    FROM export_jobs WHERE {WAITING} GROUP BY status, export_type, format
    UNION ALL
    SELECT status, export_type, format, count(*) AS jobs, 0 AS oldest
    FROM export_jobs WHERE {RUNNING} GROUP BY status, export_type, format
    """
)

PATIENCE = "5s"
"""How long the database may count."""

Kind = tuple[str, str, str]
"""State, dataset and format as they were asked for."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Unfinished jobs by kind, and for how many seconds the one that waits longest could have run."""

    jobs: Mapping[Kind, int]
    oldest: float


async def read_backlog(engine: AsyncEngine) -> Backlog:
    """Count the unfinished jobs.

    Raises:
        Retryable: the database is away, or takes longer than :data:`PATIENCE`.
    """
    async with transaction(
        without_transactions(engine), f"SET LOCAL statement_timeout = '{PATIENCE}'"
    ) as connection:
        rows = (await connection.execute(BACKLOG)).all()
    return Backlog(
        {(row.status, row.export_type, row.format): row.jobs for row in rows},
        max((float(row.oldest) for row in rows), default=0.0),
    )

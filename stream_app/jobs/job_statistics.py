"""Reads what operators ask about jobs: who uses the service, and why a job waits."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from stream_app.db.engine import autocommitting, transaction
from stream_app.jobs.models import RUNNING, WAITING
from stream_app.jobs.worker_registry import SILENT

TIMEOUT = "10s"
"""Time-out of one statement."""

MAX_GROUPS = 500
"""Limit of users or datasets in one answer: those with the most jobs."""

Grouping = Literal["user", "dataset", "both"]

_GROUPS = {"user": "user_id", "dataset": "export_type", "both": "user_id, export_type"}

_COUNTS = """
    count(*) AS jobs, count(*) FILTER (WHERE status IN ('completed', 'expired')) AS completed,
    count(*) FILTER (WHERE status = 'failed') AS failed,
    coalesce(sum(row_count) FILTER (WHERE status IN ('completed', 'expired')), 0)::bigint AS rows,
    coalesce(sum(file_size) FILTER (WHERE status IN ('completed', 'expired')), 0)::bigint AS bytes
"""

_USAGE = {
    by: text(
        f"""
        SELECT {columns}, {_COUNTS}, count(*) OVER () AS groups
        FROM export_jobs WHERE created_at >= :since AND created_at < :until
        GROUP BY {columns} ORDER BY count(*) DESC, {columns} LIMIT {MAX_GROUPS}
        """
    )
    for by, columns in _GROUPS.items()
}
_TOTAL = text(f"SELECT {_COUNTS} FROM export_jobs WHERE created_at >= :since AND created_at < :until")

_POSITION = text(
    f"""
    SELECT now() AS now,
        (
            SELECT count(*) FROM export_jobs AS other
            WHERE {WAITING} AND admitted_at IS NOT NULL AND (not_before IS NULL OR not_before <= now())
                AND (priority, created_at, id) < (:priority, :created_at, CAST(:id AS uuid))
        ) AS before,
        (
            SELECT count(*) FROM export_jobs
            WHERE {RUNNING} AND user_id = :user_id AND lease_until >= now()
        ) AS user_running,
        (SELECT count(*) FROM workers WHERE seen_at >= now() - CAST(:silent AS interval)) AS workers,
        (
            SELECT coalesce(sum(slots), 0) FROM workers WHERE seen_at >= now() - CAST(:silent AS interval)
        )::bigint AS slots,
        (
            SELECT coalesce(sum(running), 0) FROM workers WHERE seen_at >= now() - CAST(:silent AS interval)
        )::bigint AS running
    """
)

_READY_SINCE = "CASE WHEN attempt > 0 THEN created_at ELSE greatest(created_at, not_before) END"
_OLDEST = text(
    f"""
    SELECT id FROM export_jobs WHERE {WAITING} AND {_READY_SINCE} <= now()
    ORDER BY {_READY_SINCE}, id LIMIT 1
    """
)
_LONGEST = text(
    f"""
    SELECT id AS export_job_id, user_id, export_type, format, worker, attempt, row_count AS rows, started_at,
           lease_until
    FROM export_jobs WHERE {RUNNING} ORDER BY started_at, id LIMIT 100
    """
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Jobs of one group that were requested in a time, with the rows and bytes of the completed ones."""

    user_id: str | None = None
    export_type: str | None = None
    jobs: int
    completed: int
    failed: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePosition:
    """What a waiting job waits behind.

    Attributes:
        now: the time by the database's clock.
        before: how many jobs that could start have a higher priority or are older.
        user_running: how many jobs of the same user run.
        workers, slots, running: workers that have reported lately, their slots, and those in use.
    """

    now: datetime
    before: int
    user_running: int
    workers: int
    slots: int
    running: int


class JobStatistics:
    """Reads statistics of jobs.

    Every method raises :class:`~streaming_exporter.errors.Retryable` if the database is unavailable or too
    slow.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._autocommit = autocommitting(engine)

    async def usage(
        self, since: datetime, until: datetime, by: Grouping
    ) -> tuple[Usage, Sequence[Usage], int]:
        """Return the total, the groups with the most jobs, and the number of all groups."""
        limits = {"since": since, "until": until}
        async with self._transaction() as connection:
            total = Usage(**(await connection.execute(_TOTAL, limits)).one()._mapping)
            rows = (await connection.execute(_USAGE[by], limits)).mappings().all()
        groups = [Usage(**{name: row[name] for name in row if name != "groups"}) for row in rows]
        return total, groups, rows[0]["groups"] if rows else 0

    async def position(
        self, job_id: UUID, user_id: str, priority: int, created_at: datetime
    ) -> QueuePosition:
        """Return what a job of this user, with this priority and age, waits behind."""
        values = {
            "id": job_id,
            "user_id": user_id,
            "priority": priority,
            "created_at": created_at,
            "silent": SILENT,
        }
        async with self._transaction() as connection:
            return QueuePosition(**(await connection.execute(_POSITION, values)).one()._mapping)

    async def oldest(self) -> UUID | None:
        """Return the job that waits longest of those that could run."""
        async with self._transaction() as connection:
            found: UUID | None = await connection.scalar(_OLDEST)
            return found

    async def running(self) -> Sequence[dict[str, Any]]:
        """Return the running jobs, the one that runs longest first, at most 100."""
        async with self._transaction() as connection:
            return [dict(row._mapping) for row in await connection.execute(_LONGEST)]

    async def unfinished_of(self, user_id: str) -> list[UUID]:
        """Return the jobs of a user that have not ended, newest first."""
        statement = text(
            "SELECT id FROM export_jobs WHERE user_id = :user_id AND status IN ('pending', 'processing') "
            "ORDER BY created_at DESC"
        )
        async with self._transaction() as connection:
            return list((await connection.scalars(statement, {"user_id": user_id})).all())

    def _transaction(self) -> Any:
        return transaction(self._autocommit, f"SET LOCAL statement_timeout = '{TIMEOUT}'")


def ago(moment: datetime | None, now: datetime) -> float | None:
    """Return how many seconds ``moment`` is before ``now``, to the millisecond; ``None`` without a moment."""
    return None if moment is None else round(max(timedelta(0), now - moment).total_seconds(), 3)

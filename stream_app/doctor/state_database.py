"""The state database: are its tables there, and does somebody work on every job."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.migrations import missing
from stream_app.doctor.findings import Area, Finding
from stream_app.jobs.states import FINAL
from stream_app.settings import Settings

AREA = Area("database")

WAITS_LONG, WAITS_TOO_LONG = timedelta(minutes=10), timedelta(hours=1)
NOT_CLEANED = timedelta(days=1)
NOT_ADMITTED, NOT_EXPIRED = timedelta(minutes=5), timedelta(hours=1)

_JOBS = text(
    """
    SELECT
        count(*) FILTER (WHERE status = 'processing') AS running,
        count(*) FILTER (WHERE status = 'pending') AS pending,
        count(*) FILTER (
            WHERE status = 'processing' AND outcome IS NULL
            AND lease_until < now() - CAST(:late AS interval)) AS abandoned,
        count(*) FILTER (
            WHERE outcome IS NOT NULL AND lease_until < now() - CAST(:late AS interval)) AS unpublished,
        count(*) FILTER (
            WHERE status = 'completed' AND outcome IS NULL
            AND expires_at < now() - CAST(:expired AS interval)) AS unexpired,
        count(*) FILTER (
            WHERE status = 'pending' AND outcome IS NULL AND admitted_at IS NULL
            AND created_at < now() - CAST(:admitted AS interval)) AS unadmitted,
        now() - min(coalesce(not_before, created_at)) FILTER (
            WHERE status = 'pending' AND outcome IS NULL AND admitted_at IS NOT NULL
            AND coalesce(not_before, created_at) <= now()) AS oldest
    FROM export_jobs WHERE status IN ('pending', 'processing', 'completed') OR outcome IS NOT NULL
    """
)

# Through the index on the time they were asked for; what is kept for good reason lies there too, and is few.
_OLD = text(
    """
    SELECT count(*) FROM (
        SELECT FROM export_jobs
        WHERE created_at < now() - CAST(:history AS interval) AND status = ANY (CAST(:final AS text[]))
            AND outcome IS NULL
        ORDER BY created_at LIMIT 1000
    ) AS old
    """
)


async def check_state_database(connection: AsyncConnection, settings: Settings) -> AsyncIterator[Finding]:
    """Migrations first: where they lack, there is no more to look at."""
    there = await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    revision = (
        await connection.scalar(text("SELECT max(version_num) FROM alembic_version")) if there else None
    )
    behind = missing(revision)
    yield AREA.problem_if(
        bool(behind),
        "migrations",
        f"at {revision}",
        f"at {revision or 'none'}, lacks {', '.join(reversed(behind))}",
        "run `exporter migrate`",
    )
    if behind:
        return
    limits = {
        "late": timedelta(seconds=2 * settings.lease_seconds),
        "expired": NOT_EXPIRED,
        "admitted": NOT_ADMITTED,
    }
    jobs = (await connection.execute(_JOBS, limits)).one()
    yield AREA.ok("jobs", f"{jobs.running} running, {jobs.pending} pending")
    yield AREA.problem_if(
        jobs.abandoned > 0,
        "leases",
        "every running job has a worker",
        f"{jobs.abandoned} running jobs have lost their worker, and none took them over",
        "start a worker, or see in the workers' logs why they claim nothing",
    )
    yield AREA.problem_if(
        jobs.unpublished > 0,
        "outcomes",
        "every outcome is published",
        f"{jobs.unpublished} jobs have ended without their event on record",
        "see in the workers' logs whether they reach Kafka (outcome.publish_failed)",
    )
    yield AREA.problem_if(
        jobs.unadmitted > 0,
        "admission",
        "every request is admitted",
        f"{jobs.unadmitted} jobs that the API took wait for their event to be read",
        "see that the API reaches Kafka and that the workers read exports.requests",
    )
    yield AREA.problem_if(
        jobs.unexpired > 0,
        "expiry",
        "every file whose time is over is removed",
        f"{jobs.unexpired} files are kept longer than they should be",
        "see in the workers' logs whether they reach the object store (outcome.publish_failed)",
    )
    old = {"history": settings.history + NOT_CLEANED, "final": list(FINAL)}
    kept = await connection.scalar(_OLD, old) or 0
    yield AREA.problem_if(
        kept > 0,
        "history",
        f"nothing is older than {settings.history_days} days",
        f"{kept if kept < 1000 else '1000 or more'} jobs are older than EXPORTER_HISTORY_DAYS",
        "nothing if that was lowered just now; else see in the workers' logs why they do not (prune.failed)",
    )
    yield _queue(jobs.oldest)


def _queue(oldest: Any) -> Finding:
    if oldest is None or oldest < WAITS_LONG:
        waits = f"the oldest job has waited {oldest.total_seconds():.0f} s" if oldest else "no job is due"
        return AREA.ok("queue", waits)
    what = f"the oldest job has waited for {oldest.total_seconds() / 60:.0f} minutes"
    advice = "start more workers, or raise EXPORTER_WORKER_SLOTS or EXPORTER_USER_SLOTS"
    return (AREA.problem if oldest >= WAITS_TOO_LONG else AREA.warning)("queue", what, advice)

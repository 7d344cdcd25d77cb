"""Check the state database: its tables, and that a worker takes care of each job."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.migrations import missing
from stream_app.doctor.findings import Finding, FindingFactory
from stream_app.doctor.schedules_and_deliveries import check_schedules_and_deliveries
from stream_app.jobs.states import FINAL
from stream_app.settings import Settings

AREA = FindingFactory("database")

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

# Uses the index on created_at. Old jobs that are kept for a reason are in that range too, but are few.
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


@dataclass(frozen=True, slots=True)
class JobCounts:
    """The row of :data:`_JOBS`: numbers of jobs, and how long the oldest pending job has waited."""

    running: int
    pending: int
    abandoned: int
    unpublished: int
    unexpired: int
    unadmitted: int
    oldest: timedelta | None


async def check_state_database(connection: AsyncConnection, settings: Settings) -> AsyncIterator[Finding]:
    """Check the migrations, then the jobs. Without the newest migrations the jobs cannot be checked."""
    there = await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    revision = (
        await connection.scalar(text("SELECT max(version_num) FROM alembic_version")) if there else None
    )
    behind = missing(revision)
    yield AREA.problem_if(
        bool(behind),
        "migrations",
        f"the tables are at revision {revision}",
        f"the tables are at revision {revision or 'none'}; missing: {', '.join(reversed(behind))}",
        "run `exporter migrate`",
    )
    if behind:
        return
    limits = {
        "late": timedelta(seconds=2 * settings.lease_seconds),
        "expired": NOT_EXPIRED,
        "admitted": NOT_ADMITTED,
    }
    jobs = JobCounts(**(await connection.execute(_JOBS, limits)).mappings().one())
    yield AREA.ok("jobs", f"{jobs.running} running, {jobs.pending} pending")
    yield AREA.problem_if(
        jobs.abandoned > 0,
        "leases",
        "every running job has a worker",
        f"{jobs.abandoned} running jobs have lost their worker, and no other worker has rescued them",
        "start a worker, or find in the workers' logs why they do not claim jobs",
    )
    yield AREA.problem_if(
        jobs.unpublished > 0,
        "outcomes",
        "every outcome is published",
        f"{jobs.unpublished} jobs have ended, but their events are not published",
        "find in the workers' logs why they cannot publish to Kafka (outcome.publish_failed)",
    )
    yield AREA.problem_if(
        jobs.unadmitted > 0,
        "admission",
        "every request is admitted",
        f"{jobs.unadmitted} jobs that the API submitted are not admitted yet",
        "check that the API can publish to Kafka and that the workers read exports.requests",
    )
    yield AREA.problem_if(
        jobs.unexpired > 0,
        "expiry",
        "every expired file is removed",
        f"{jobs.unexpired} expired files are not removed",
        "find in the workers' logs why they cannot remove them from the store (outcome.publish_failed)",
    )
    old = {"history": settings.history + NOT_CLEANED, "final": list(FINAL)}
    kept = await connection.scalar(_OLD, old) or 0
    yield AREA.problem_if(
        kept > 0,
        "history",
        f"no job is older than {settings.history_days} days",
        f"{kept if kept < 1000 else '1000 or more'} jobs are older than EXPORTER_HISTORY_DAYS",
        "wait if that setting was lowered just now; else find in the workers' logs why the job cleaner fails",
    )
    yield _queue(jobs.oldest)
    paused = (await connection.scalars(text("SELECT scope FROM claim_pauses ORDER BY scope"))).all()
    if paused:
        yield AREA.warning(
            "pauses",
            f"operators have paused the claims of: {', '.join(paused)}",
            "run `exporter resume` when that is over; `exporter pauses` shows who paused them and why",
        )
    else:
        yield AREA.ok("pauses", "no claims are paused")
    async for finding in check_schedules_and_deliveries(connection):
        yield finding


def _queue(oldest: timedelta | None) -> Finding:
    if oldest is None or oldest < WAITS_LONG:
        waits = (
            f"the oldest pending job has waited for {oldest.total_seconds():.0f} s"
            if oldest
            else "the queue is empty"
        )
        return AREA.ok("queue", waits)
    what = f"the oldest pending job has waited for {oldest.total_seconds() / 60:.0f} minutes"
    advice = "start more workers, or raise EXPORTER_WORKER_SLOTS or EXPORTER_USER_SLOTS"
    return (AREA.problem if oldest >= WAITS_TOO_LONG else AREA.warning)("queue", what, advice)

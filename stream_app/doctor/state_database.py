"""Checks the state database: its tables, and that a worker takes care of each job."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.db.engine import COMMAND_SECONDS
from stream_app.db.migrations import missing
from stream_app.db.writability import find_write_fault
from stream_app.doctor.findings import Finding, FindingFactory, State
from stream_app.doctor.schedules_and_deliveries import check_schedules_and_deliveries
from stream_app.jobs.states import FINAL
from stream_app.settings import Settings

AREA = FindingFactory("database")

WAITS_LONG, WAITS_TOO_LONG = timedelta(minutes=10), timedelta(hours=1)
NOT_CLEANED = timedelta(days=1)
NOT_ADMITTED, NOT_EXPIRED = timedelta(minutes=5), timedelta(hours=1)

COUNTED_OLD = 1000
"""Old jobs are counted up to this number."""

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
        ORDER BY created_at LIMIT :most
    ) AS old
    """
)

# What a session begins with. Transactions of the service set other values, but not each statement by itself.
_INHERITED = text(
    """
    SELECT name || ' = ' || reset_val || coalesce(unit, '') FROM pg_settings
    WHERE name IN ('statement_timeout', 'transaction_timeout') AND reset_val::bigint BETWEEN 1 AND :least
        OR name = 'synchronous_commit' AND reset_val = 'off'
        OR name = 'default_transaction_isolation' AND reset_val NOT LIKE 'read %'
    ORDER BY name
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
    """Check that it can be written, its settings, the migrations, then the jobs.

    Without the newest migrations the jobs cannot be checked.
    """
    yield await _check_writes(connection)
    yield await _check_inherited(connection)
    migrations = await _check_migrations(connection)
    yield migrations
    if migrations.state is not State.OK:
        return
    limits = {
        "late": timedelta(seconds=2 * settings.lease_seconds),
        "expired": NOT_EXPIRED,
        "admitted": NOT_ADMITTED,
    }
    jobs = JobCounts(**(await connection.execute(_JOBS, limits)).mappings().one())
    for finding in _check_counts(jobs):
        yield finding
    yield await _check_history(connection, settings)
    yield _check_queue(jobs.oldest)
    yield await _check_pauses(connection)
    async for finding in check_schedules_and_deliveries(connection):
        yield finding


async def _check_writes(connection: AsyncConnection) -> Finding:
    fault = await find_write_fault(connection)
    if fault is None:
        return AREA.ok("writes", "it can be written")
    if fault.code == "full_notifications":
        return AREA.problem("writes", "full_notifications", percent=fault.percent)
    return AREA.problem("writes", "replica" if fault.code == "replica" else "read_only")


async def _check_inherited(connection: AsyncConnection) -> Finding:
    found = (await connection.scalars(_INHERITED, {"least": COMMAND_SECONDS * 1000})).all()
    if found:
        return AREA.warning("settings", "inherited_settings", settings=", ".join(found))
    return AREA.ok("settings", "its sessions begin with usual settings")


async def _check_migrations(connection: AsyncConnection) -> Finding:
    there = await connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
    revision = (
        await connection.scalar(text("SELECT max(version_num) FROM alembic_version")) if there else None
    )
    behind = ", ".join(reversed(missing(revision)))
    if revision is None:
        return AREA.problem("migrations", "missing_tables", missing=behind)
    return AREA.problem_if(
        bool(behind),
        "migrations",
        f"the tables are at revision {revision}",
        "missing_migrations",
        revision=revision,
        missing=behind,
    )


def _check_counts(jobs: JobCounts) -> Iterator[Finding]:
    yield AREA.ok("jobs", f"{jobs.running} running, {jobs.pending} pending")
    yield AREA.problem_if(
        jobs.abandoned > 0, "leases", "every running job has a worker", "abandoned_jobs", count=jobs.abandoned
    )
    yield AREA.problem_if(
        jobs.unpublished > 0,
        "outcomes",
        "every outcome is published",
        "unpublished_outcomes",
        count=jobs.unpublished,
    )
    yield AREA.problem_if(
        jobs.unadmitted > 0,
        "admission",
        "every request is admitted",
        "unadmitted_jobs",
        count=jobs.unadmitted,
    )
    yield AREA.problem_if(
        jobs.unexpired > 0, "expiry", "every expired file is removed", "unexpired_files", count=jobs.unexpired
    )


async def _check_history(connection: AsyncConnection, settings: Settings) -> Finding:
    old = {"history": settings.history + NOT_CLEANED, "final": list(FINAL), "most": COUNTED_OLD}
    kept = await connection.scalar(_OLD, old) or 0
    return AREA.problem_if(
        kept > 0,
        "history",
        f"no job is older than {settings.history_days} days",
        "old_jobs",
        number=kept if kept < COUNTED_OLD else f"≥ {kept}",
    )


def _check_queue(oldest: timedelta | None) -> Finding:
    if oldest is None:
        return AREA.ok("queue", "the queue is empty")
    if oldest < WAITS_LONG:
        return AREA.ok("queue", f"the oldest pending job has waited for {oldest.total_seconds():.0f} s")
    create = AREA.problem if oldest >= WAITS_TOO_LONG else AREA.warning
    return create("queue", "long_queue", minutes=round(oldest.total_seconds() / 60))


async def _check_pauses(connection: AsyncConnection) -> Finding:
    paused = (await connection.scalars(text("SELECT scope FROM claim_pauses ORDER BY scope"))).all()
    if paused:
        return AREA.warning("pauses", "paused_claims", scopes=", ".join(paused))
    return AREA.ok("pauses", "no claims are paused")

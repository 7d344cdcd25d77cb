"""Applies the outcome of a run to its schedule."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ENDED = text(
    """
    SELECT id, schedule_id, status, error_message, "window"
    FROM export_jobs
    WHERE id = ANY(:ids) AND schedule_id IS NOT NULL AND status IN ('completed', 'failed', 'cancelled')
    ORDER BY schedule_id, run_at
    """
)

_COMPLETED = text("UPDATE scheduled_exports SET failures = 0 WHERE id = :id AND failures > 0")

_LOCK = text("SELECT window_start FROM scheduled_exports WHERE id = :id FOR UPDATE")

# A run that exports an earlier run's window again did not advance window_start. A window is not lost if a
# later run has exported it or will export it. Only the latest runs are read, because a schedule can have
# hundreds of thousands.
_LOST = text(
    """
    WITH run AS (
        SELECT id, status, created_at,
               CAST("window" ->> 'from' AS timestamptz) AS start,
               CAST("window" ->> 'to' AS timestamptz) AS "end"
        FROM export_jobs
        WHERE schedule_id = :id AND "window" ->> 'from' IS NOT NULL AND "window" ->> 'again' IS NULL
        ORDER BY created_at DESC, id DESC LIMIT 1000
    )
    SELECT start FROM run
    WHERE "end" = :window_start AND start < "end" AND status IN ('failed', 'cancelled')
      AND (CAST(:job_id AS uuid) IS NULL OR id = :job_id)
      AND NOT EXISTS (
          SELECT FROM run AS later
          WHERE later.created_at > run.created_at AND later.status NOT IN ('failed', 'cancelled')
            AND later.start < run."end" AND later."end" > run.start
      )
    ORDER BY created_at DESC LIMIT 1
    """
)

_MOVE_BACK = text("UPDATE scheduled_exports SET window_start = :window_start WHERE id = :id")

# A window that was returned is exported by the next run, so it is no gap.
_CLOSE = text(
    "DELETE FROM schedule_gaps "
    "WHERE schedule_id = :id AND window_start >= :window_start AND window_end <= :reached"
)

# The owner can have moved window_start into the window. Then the next run exports what lies behind it, or
# later runs have exported a part. What no later run and no other gap contains is lost.
_OPEN = text(
    """
    WITH run AS (
        SELECT job.schedule_id, job.created_at,
               CAST(job."window" ->> 'from' AS timestamptz) AS start,
               least(
                   CAST(job."window" ->> 'to' AS timestamptz), CAST(:window_start AS timestamptz)
               ) AS "end"
        FROM export_jobs AS job JOIN scheduled_exports AS schedule ON schedule.id = job.schedule_id
        WHERE job.id = :job_id AND schedule."window" <> 'none'
            AND job."window" ->> 'from' IS NOT NULL AND job."window" ->> 'again' IS NULL
    ), known AS (
        SELECT CAST(later."window" ->> 'from' AS timestamptz) AS start,
               CAST(later."window" ->> 'to' AS timestamptz) AS "end"
        FROM run JOIN export_jobs AS later
            ON later.schedule_id = run.schedule_id AND later.created_at > run.created_at
        WHERE later.status NOT IN ('failed', 'cancelled') AND later."window" ->> 'again' IS NULL
        UNION ALL
        SELECT gap.window_start, gap.window_end
        FROM run JOIN schedule_gaps AS gap ON gap.schedule_id = run.schedule_id
    ), within AS (
        SELECT known.* FROM known JOIN run ON known.start < run."end" AND known."end" > run.start
        WHERE known.start < known."end"
    ), part AS (
        SELECT at AS start, lead(at) OVER (ORDER BY at) AS "end"
        FROM (
            SELECT start AS at FROM run UNION SELECT "end" FROM run
            UNION SELECT start FROM within UNION SELECT "end" FROM within
        ) AS limits
    )
    INSERT INTO schedule_gaps (schedule_id, window_start, window_end)
    SELECT run.schedule_id, part.start, part."end"
    FROM run JOIN part ON part.start >= run.start AND part."end" <= run."end"
    WHERE run.start < run."end" AND CAST(:window_start AS timestamptz) IS NOT NULL
      AND NOT EXISTS (SELECT FROM within WHERE within.start < part."end" AND within."end" > part.start)
    ON CONFLICT DO NOTHING
    """
)

_FAILED = text(
    """
    UPDATE scheduled_exports
    SET failures = failures + 1,
        active = active AND failures + 1 < :most,
        next_run = CASE WHEN failures + 1 < :most THEN next_run END,
        paused_at = CASE WHEN active AND failures + 1 >= :most THEN now() ELSE paused_at END,
        paused_reason = CASE
            WHEN active AND failures + 1 >= :most
            THEN 'paused after ' || (failures + 1) || ' failures in a row; the last one: ' || :error
            ELSE paused_reason
        END,
        paused_code = CASE WHEN active AND failures + 1 >= :most THEN 'repeated_failures' ELSE paused_code END
    WHERE id = :id
    """
)


async def apply_run_outcomes(
    connection: AsyncConnection, ended: Sequence[UUID], *, max_failures: int
) -> None:
    """Apply the outcomes of runs to their schedules: count failures, pause schedules, return lost windows.

    It is called once for each outcome, in the transaction that records the outcome.

    Args:
        connection: in that transaction.
        ended: ids of jobs that have ended. Jobs without a schedule are ignored.
        max_failures: how many failures in a row pause a schedule.
    """
    if not ended:
        return
    for run in (await connection.execute(_ENDED, {"ids": list(ended)})).all():
        if run.status == "completed":
            await connection.execute(_COMPLETED, {"id": run.schedule_id})
            continue
        if run.window is not None:
            await _return_window(connection, run.schedule_id, run.id)
        if run.status == "failed":
            await connection.execute(
                _FAILED, {"id": run.schedule_id, "most": max_failures, "error": run.error_message or "?"}
            )


async def _return_window(connection: AsyncConnection, schedule_id: UUID, job_id: UUID) -> None:
    """Return the window of a run that failed or was cancelled, so that another run exports it.

    If it is the schedule's last window, ``window_start`` moves back to its start, and the next run exports
    it. If the window before it was lost too, ``window_start`` moves back further, and so on. If a later
    window follows, what it does not contain of the lost window becomes a gap, for which the scheduler starts
    an additional run.
    """
    reached = await connection.scalar(_LOCK, {"id": schedule_id})
    schedule = {"id": schedule_id, "window_start": reached}
    wanted: UUID | None = job_id
    while (start := await connection.scalar(_LOST, {**schedule, "job_id": wanted})) is not None:
        schedule["window_start"], wanted = start, None
    if schedule["window_start"] != reached:
        await connection.execute(_MOVE_BACK, schedule)
        await connection.execute(_CLOSE, {**schedule, "reached": reached})
    await connection.execute(_OPEN, {"job_id": job_id, "window_start": schedule["window_start"]})

"""What the end of a run means for its schedule."""

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

# A window that is another run's, taken again, has not moved the mark. What a later run has, or is about to
# have, is not lost. Only the latest runs are looked at: a schedule may have had hundreds of thousands.
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
    WHERE "end" = :mark AND start < "end" AND status IN ('failed', 'cancelled')
      AND (CAST(:job_id AS uuid) IS NULL OR id = :job_id)
      AND NOT EXISTS (
          SELECT FROM run AS later
          WHERE later.created_at > run.created_at AND later.status NOT IN ('failed', 'cancelled')
            AND later.start < run."end" AND later."end" > run.start
      )
    ORDER BY created_at DESC LIMIT 1
    """
)

_TAKE_BACK = text("UPDATE scheduled_exports SET window_start = :mark WHERE id = :id")

# A window that was taken back is the next run's again.
_CLOSE = text(
    "DELETE FROM schedule_gaps WHERE schedule_id = :id AND window_start >= :mark AND window_end <= :reached"
)

_OPEN = text(
    """
    WITH run AS (
        SELECT job.schedule_id, job.created_at,
               CAST(job."window" ->> 'from' AS timestamptz) AS start,
               CAST(job."window" ->> 'to' AS timestamptz) AS "end"
        FROM export_jobs AS job JOIN scheduled_exports AS schedule ON schedule.id = job.schedule_id
        WHERE job.id = :job_id AND schedule."window" <> 'none'
            AND job."window" ->> 'from' IS NOT NULL AND job."window" ->> 'again' IS NULL
    )
    INSERT INTO schedule_gaps (schedule_id, window_start, window_end)
    SELECT run.schedule_id, run.start, run."end" FROM run
    WHERE run.start < run."end" AND run."end" <= :mark
      AND NOT EXISTS (
          SELECT FROM export_jobs AS later
          WHERE later.schedule_id = run.schedule_id AND later.created_at > run.created_at
            AND later.status NOT IN ('failed', 'cancelled') AND later."window" ->> 'again' IS NULL
            AND CAST(later."window" ->> 'from' AS timestamptz) < run."end"
            AND CAST(later."window" ->> 'to' AS timestamptz) > run.start
      )
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
        END
    WHERE id = :id
    """
)


async def note(connection: AsyncConnection, ended: Sequence[UUID], *, most_failures: int) -> None:
    """Count failures of the jobs in ``ended`` that are runs; pause a schedule at ``most_failures`` in a row.

    Called once for each end, in the transaction that records it.
    """
    if not ended:
        return
    for run in (await connection.execute(_ENDED, {"ids": list(ended)})).all():
        if run.status == "completed":
            await connection.execute(_COMPLETED, {"id": run.schedule_id})
            continue
        if run.window is not None:
            await _take_back(connection, run.schedule_id, run.id)
        if run.status == "failed":
            await connection.execute(
                _FAILED, {"id": run.schedule_id, "most": most_failures, "error": run.error_message or "?"}
            )


async def _take_back(connection: AsyncConnection, schedule_id: UUID, job_id: UUID) -> None:
    """Rows that no file has are taken up by the next run, or by a run of their own.

    The next run takes them where the lost window is the last one. Where the run before was lost too, and
    could not be taken back because this one had been planned, its window follows, and so on. A window that a
    later one follows is a gap: the scheduler makes up for it.
    """
    reached = mark = await connection.scalar(_LOCK, {"id": schedule_id})
    wanted: UUID | None = job_id
    while (
        start := await connection.scalar(_LOST, {"id": schedule_id, "mark": mark, "job_id": wanted})
    ) is not None:
        mark, wanted = start, None
    if mark != reached:
        await connection.execute(_TAKE_BACK, {"id": schedule_id, "mark": mark})
        await connection.execute(_CLOSE, {"id": schedule_id, "mark": mark, "reached": reached})
    await connection.execute(_OPEN, {"job_id": job_id, "mark": mark})

"""What the end of a run means for its schedule."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_ENDED = text(
    """
    SELECT schedule_id, status, error_message, "window" ->> 'from' AS start, "window" ->> 'to' AS "end"
    FROM export_jobs
    WHERE id = ANY(:ids) AND schedule_id IS NOT NULL AND status IN ('completed', 'failed', 'cancelled')
    ORDER BY schedule_id, run_at
    """
)

_COMPLETED = text("UPDATE scheduled_exports SET failures = 0 WHERE id = :id AND failures > 0")

# Rows that no file has are taken up by the next run, unless a later one has been planned already.
_TAKE_BACK = text(
    """
    UPDATE scheduled_exports SET window_start = CAST(CAST(:start AS text) AS timestamptz)
    WHERE id = :id AND window_start = CAST(CAST(:end AS text) AS timestamptz)
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
        if run.start is not None:
            await connection.execute(_TAKE_BACK, {"id": run.schedule_id, "start": run.start, "end": run.end})
        if run.status == "failed":
            await connection.execute(
                _FAILED, {"id": run.schedule_id, "most": most_failures, "error": run.error_message or "?"}
            )

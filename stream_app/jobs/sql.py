"""The three statements that must decide and write in one step, kept as SQL so that they can be explained."""

from sqlalchemy import text

_ABANDONED = "job.status = 'processing' AND job.outcome IS NULL AND job.lease_until < now()"

_ELIGIBLE = f"""
    job.outcome IS NULL AND job.cancel_requested_at IS NULL AND job.admitted_at IS NOT NULL
    AND (
        (job.status = 'pending' AND (job.not_before IS NULL OR job.not_before <= now()))
        OR ({_ABANDONED} AND job.failures + 1 < :max_attempts)
    )
"""

# The eligibility stands twice: the second time it is evaluated on the locked version of the row,
# which another worker may have claimed since the snapshot was taken.
CLAIM = text(
    f"""
    WITH running AS (
        SELECT user_id, count(*) AS jobs FROM export_jobs
        WHERE status = 'processing' AND outcome IS NULL AND lease_until >= now() GROUP BY user_id
    ), waiting AS (
        SELECT job.id, job.priority, job.created_at,
               coalesce(running.jobs, 0)
               + row_number() OVER (
                   PARTITION BY job.user_id ORDER BY job.priority, job.created_at, job.id
               ) AS turn
        FROM export_jobs AS job LEFT JOIN running USING (user_id)
        WHERE job.status IN ('pending', 'processing') AND {_ELIGIBLE}
    ), chosen AS (
        SELECT job.id FROM export_jobs AS job JOIN waiting ON waiting.id = job.id
        WHERE waiting.turn <= :user_slots AND {_ELIGIBLE}
        ORDER BY waiting.priority, waiting.turn, waiting.created_at
        LIMIT :limit
        FOR UPDATE OF job SKIP LOCKED
    )
    UPDATE export_jobs AS job
    SET status = 'processing', attempt = attempt + 1, worker = :worker,
        failures = failures + (status = 'processing')::int,
        lease_until = now() + :lease, started_at = now(), row_count = NULL, not_before = NULL
    FROM chosen WHERE job.id = chosen.id
    RETURNING job.*
    """
)

RENEW = text(
    """
    UPDATE export_jobs AS job
    SET lease_until = now() + :lease, row_count = held.row_count,
        estimated_rows = coalesce(held.estimated_rows, job.estimated_rows)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:rows AS bigint[]), CAST(:estimates AS bigint[])
    ) AS held (id, attempt, row_count, estimated_rows)
    WHERE job.id = held.id AND job.attempt = held.attempt AND job.worker = :worker
        AND job.status = 'processing' AND job.outcome IS NULL
    RETURNING job.id, job.cancel_requested_at IS NOT NULL AS cancelled
    """
)

ABANDONED = text(
    f"""
    SELECT job.*, now() AS now FROM export_jobs AS job
    WHERE {_ABANDONED} AND (job.cancel_requested_at IS NOT NULL OR job.failures + 1 >= :max_attempts)
    FOR UPDATE SKIP LOCKED
    """
)

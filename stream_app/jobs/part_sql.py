"""SQL of the part store: statements about the parts of large split exports."""

from sqlalchemy import text

from stream_app.db.listener import WAKE_CHANNEL

_OWN = """
    part.job_id = :job_id AND part.attempt = :attempt AND part.number = :number
    AND part.part_attempt = :part_attempt AND part.worker = :worker AND part.status = 'processing'
"""
"""Condition: the claim still holds the part."""

# A part with a snapshot of its own outlives the attempt that planned it, and goes on while the job waits for
# its next holder.
_NEEDED = """
    job.outcome IS NULL AND (
        part.snapshot IS NULL AND job.status IN ('pending', 'processing')
        OR part.attempt = job.attempt AND job.status = 'processing'
    )
"""

DELETE_PARTS = text("DELETE FROM export_parts WHERE job_id = :job_id")

# All parts are one parameter, as with jobs.
INSERT_PARTS = text(
    f"""
    WITH inserted AS (
        INSERT INTO export_parts (job_id, attempt, number, range, folder, snapshot, as_of)
        SELECT :job_id, :attempt, part.number, part.range, :folder, :snapshot, :as_of
        FROM jsonb_to_recordset(CAST(:parts AS jsonb)) AS part (number int, range jsonb)
        ORDER BY part.number
        RETURNING number
    )
    SELECT count(*), pg_notify('{WAKE_CHANNEL}', '') FROM inserted
    """
)
"""Inserts the parts of a plan and notifies idle workers."""

BEGIN_ANEW = ("snapshot_lost", "table_locked", "table_changed")
"""Codes of errors of a part after which all parts begin anew. They count before errors that end the job."""

_ERROR = f"""
    (array_agg(part.{{column}} ORDER BY part.error_code NOT IN {BEGIN_ANEW}, part.number)
        FILTER (WHERE part.status = 'failed'))[1]
"""
"""A column of the failed part with the error that counts."""

STATE = text(
    f"""
    SELECT count(*) AS parts,
           count(*) FILTER (WHERE part.status = 'completed') AS completed,
           coalesce(sum(part.row_count), 0)::bigint AS rows,
           count(*) FILTER (WHERE part.status = 'pending' AND part.error_code IS NOT NULL)
               AS waiting_for_outage,
           count(*) FILTER (
               WHERE part.status = 'processing' AND part.lease_until < now()
                   AND part.failures + 1 >= :max_attempts
           ) AS exhausted,
           count(*) FILTER (WHERE part.status = 'failed') AS failed,
           {_ERROR.format(column="error_code")} AS error_code,
           {_ERROR.format(column="error_message")} AS error_message
    FROM export_parts AS part WHERE part.job_id = :job_id AND part.attempt = :attempt
    """
)

KEPT_PLAN = text(
    """
    SELECT part.attempt, part.folder, count(*) AS parts FROM export_parts AS part
    WHERE part.job_id = :job_id AND part.snapshot IS NULL
    GROUP BY part.attempt, part.folder ORDER BY part.attempt LIMIT 1
    """
)
"""The plan of an earlier attempt whose parts have snapshots of their own."""

RESULTS = text(
    """
    SELECT part.result FROM export_parts AS part
    WHERE part.job_id = :job_id AND part.attempt = :attempt AND part.status = 'completed'
    ORDER BY part.number
    """
)

FILE_COUNT = text(
    """
    SELECT coalesce(sum(jsonb_array_length(part.result -> 'files')), 0)::bigint FROM export_parts AS part
    WHERE part.job_id = :job_id AND part.attempt = :attempt AND part.status = 'completed'
    """
)

RENEW = text(
    f"""
    UPDATE export_parts AS part SET lease_until = now() + :lease, row_count = held.row_count
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:numbers AS int[]),
        CAST(:part_attempts AS int[]), CAST(:rows AS bigint[])
    ) AS held (job_id, attempt, number, part_attempt, row_count)
    JOIN export_jobs AS job ON job.id = held.job_id
    WHERE part.job_id = held.job_id AND part.attempt = held.attempt AND part.number = held.number
        AND part.part_attempt = held.part_attempt AND part.worker = :worker AND part.status = 'processing'
        AND {_NEEDED}
    RETURNING part.job_id, part.attempt, part.number, job.cancel_requested_at IS NOT NULL AS cancelled
    """
)

COMPLETE = text(
    f"""
    UPDATE export_parts AS part
    SET status = 'completed', result = CAST(:result AS jsonb), row_count = :rows, lease_until = NULL
    WHERE {_OWN} RETURNING part.number
    """
)

IS_COMPLETED = text(
    """
    SELECT true FROM export_parts AS part
    WHERE part.job_id = :job_id AND part.attempt = :attempt AND part.number = :number
        AND part.part_attempt = :part_attempt AND part.worker = :worker AND part.status = 'completed'
        AND part.result = CAST(:result AS jsonb)
    """
)
"""Whether a repeated completion has succeeded before."""

LISTED_KEYS = text(
    "SELECT key FROM export_files WHERE job_id = :job_id AND key = ANY (CAST(:keys AS text[]))"
)
"""Which of the keys the list of the job's files has. It is written before the outcome is stored."""

RELEASE = text(
    f"""
    UPDATE export_parts AS part
    SET status = 'pending', worker = NULL, lease_until = NULL, row_count = NULL,
        not_before = now() + :delay, failures = failures + :failed,
        error_code = :error_code, error_message = :error_message
    WHERE {_OWN} RETURNING pg_notify('{WAKE_CHANNEL}', '')
    """
)

FAIL = text(
    f"""
    UPDATE export_parts AS part
    SET status = 'failed', lease_until = NULL, error_code = :error_code, error_message = :error_message
    WHERE {_OWN} RETURNING part.number
    """
)

_ENDED = """
    NOT EXISTS (
        SELECT FROM export_jobs AS job
        WHERE job.id = part.job_id AND job.outcome IS NULL AND job.status IN ('pending', 'processing')
    )
"""


DELETE_OF_ENDED = text(
    f"""
    DELETE FROM export_parts WHERE job_id = ANY (array(
        SELECT DISTINCT part.job_id FROM export_parts AS part WHERE {_ENDED} LIMIT 100
    ))
    """
)
"""Deletes the parts of up to 100 jobs that have ended."""

"""SQL that admits a new job and claims it in one step, if nothing waits before it."""

from collections.abc import Iterable

from stream_app.db.listener import WAKE_CHANNEL
from stream_app.db.statements import Statement
from stream_app.jobs.models import RUNNING, WAITING
from stream_app.jobs.queue_sql import CLAIM_OPTIONS, CLAIMS, run_zone

LOCK_TIMEOUT = "200ms"
"""How long the statement waits for a row that is locked. Meanwhile claims of all workers wait."""

ADMISSION_CLAIM_SETTINGS = f"""
    SELECT set_config('exporter.claims', pg_try_advisory_xact_lock({CLAIMS})::text, true),
           set_config('lock_timeout', '{LOCK_TIMEOUT}', true), {CLAIM_OPTIONS}
"""
"""Settings of the transaction. They are those of a claim, but it does not wait for the lock of claims.

``exporter.claims`` tells the statement whether the transaction has the lock.
"""

_CLAIMED = {
    "status": "excluded.status",
    "attempt": "job.attempt + excluded.attempt",
    "worker": "excluded.worker",
    "started_at": "excluded.started_at",
}
"""What a claim sets, besides ``lease_until``, which every new job has."""

# A job on record can differ from its request, if another producer has used its id. It is not claimed then.
_SAME = """
    job.user_id = excluded.user_id AND job.export_type = excluded.export_type
    AND job.split IS NULL AND job.not_before IS NULL AND job.cancel_requested_at IS NULL
"""


def admit_and_claim(columns: Iterable[str]) -> Statement:
    """Return the statement that inserts an admitted job, as ``processing`` if a claim would take it now.

    It is claimed if the transaction has the lock of claims, no other job and no part waits, no lease has
    expired, and its user has a free slot. Jobs that are not due yet, or not admitted, count as waiting: the
    statement need not find the next one. A job that is not claimed is pending, and workers are notified.

    A row of the same job that is not admitted is admitted, and claimed in the same way.

    Args:
        columns: the columns that the job has. The parameter ``:jobs`` is a JSON array with the job, ``:id``
            its id and ``:user_id`` its user.
    """
    names = [f'"{name}"' for name in columns]
    lease = "CASE WHEN chance.is_free THEN now() + :lease ELSE lease_until END"
    values = [lease if name == '"lease_until"' else name for name in names]
    claim = ", ".join(
        f"{name} = CASE WHEN {_SAME} THEN {value} ELSE job.{name} END" for name, value in _CLAIMED.items()
    )
    return Statement(
        f"""
        WITH parts_running AS (
            SELECT job_id, count(*) AS parts FROM export_parts
            WHERE status = 'processing' AND lease_until >= now() GROUP BY job_id
        ), running AS (
            SELECT coalesce(bool_or(job.lease_until < now()), false) AS is_abandoned,
                   coalesce(
                       sum(greatest(parts_running.parts, 1)) FILTER (WHERE job.user_id = :user_id), 0
                   )::bigint AS slots
            FROM (SELECT * FROM export_jobs WHERE {RUNNING}) AS job
            LEFT JOIN parts_running ON parts_running.job_id = job.id
        ), chance AS MATERIALIZED (
            SELECT current_setting('exporter.claims') = 'true'
                AND NOT EXISTS (SELECT FROM export_jobs WHERE {WAITING} AND id <> :id)
                AND NOT running.is_abandoned AND running.slots < :user_slots
                AND NOT EXISTS (SELECT FROM export_parts WHERE status = 'pending')
                AND NOT EXISTS (
                    SELECT FROM export_parts WHERE status = 'processing' AND lease_until < now()
                )
                AS is_free
            FROM running
        )
        INSERT INTO export_jobs AS job ({", ".join(names)}, status, attempt, worker, started_at)
        SELECT {", ".join(values)},
               CASE WHEN chance.is_free THEN 'processing' ELSE 'pending' END,
               chance.is_free::int,
               CASE WHEN chance.is_free THEN :worker END,
               CASE WHEN chance.is_free THEN greatest(now(), created_at) END
        FROM chance CROSS JOIN jsonb_populate_recordset(NULL::export_jobs, CAST(:jobs AS jsonb))
        ON CONFLICT (id) DO UPDATE SET
            admitted_at = excluded.admitted_at, lease_until = excluded.lease_until,
            traceparent = excluded.traceparent, {claim}
        WHERE job.admitted_at IS NULL AND job.outcome IS NULL AND job.status = 'pending'
        RETURNING job.*, {run_zone("job")},
                  CASE WHEN job.status = 'pending' THEN pg_notify('{WAKE_CHANNEL}', '')::text END
        """
    )

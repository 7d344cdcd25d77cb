"""SQL of the job queue: statements that decide and write in one step."""

from collections.abc import Iterable

from sqlalchemy import text

from stream_app.db.engine import BEGIN, DURABLE
from stream_app.db.listener import WAKE_CHANNEL
from stream_app.db.statements import Statement

_WAITING = "job.status = 'pending' AND job.outcome IS NULL"
_ENDED_UNSTARTED = "job.status = 'pending' AND job.outcome IS NOT NULL"
_NOT_HELD_BACK = "job.export_type <> ALL (CAST(:held_back AS text[]))"
_USER_NOT_HELD_BACK = "job.user_id <> ALL (CAST(:users_held_back AS text[]))"
_PARTS_NOT_HELD_BACK = "job.export_type <> ALL (CAST(:parts_held_back AS text[]))"
_RUNNING = "job.status = 'processing' AND job.outcome IS NULL"
_ABANDONED = f"{_RUNNING} AND job.lease_until < now()"
_DUE = f"""
    {_WAITING} AND job.admitted_at IS NOT NULL AND job.cancel_requested_at IS NULL
    AND (job.not_before IS NULL OR job.not_before <= now()) AND (:with_split OR job.split IS NULL)
    AND {_NOT_HELD_BACK} AND {_USER_NOT_HELD_BACK} AND NOT :only_parts
"""
_RECOVERABLE = f"""
    {_ABANDONED} AND job.cancel_requested_at IS NULL AND job.failures + 1 < :max_attempts
    AND (:with_split OR job.split IS NULL) AND {_NOT_HELD_BACK} AND {_USER_NOT_HELD_BACK}
    AND NOT :only_parts
"""

_PART_RUNNING = "part.status = 'processing' AND part.lease_until >= now()"
_PART_DUE = "part.status = 'pending' AND (part.not_before IS NULL OR part.not_before <= now())"
_PART_RECOVERABLE = """
    part.status = 'processing' AND part.lease_until < now() AND part.failures + 1 < :max_attempts
"""
PART_OF_ATTEMPT = "(part.snapshot IS NULL OR part.attempt = job.attempt)"
"""Condition: the part was planned by the job's current attempt, or it needs no snapshot of that attempt."""


def run_zone(job: str) -> str:
    """Return the column ``run_zone`` of a claim: the time zone of the schedule of the row ``job``.

    Each statement that claims has it, so that a file has the same name whichever of them claims its job.
    """
    return f"""
        (SELECT schedule.timezone FROM scheduled_exports AS schedule WHERE schedule.id = {job}.schedule_id)
            AS run_zone
    """


ADMISSION_SETTINGS = f"SELECT set_config('lock_timeout', '2s', true), {DURABLE}"
"""Settings of an admission in one statement by itself.

They limit how long it waits for a row that another transaction has locked, and its commit waits for the disk.
"""

INDEX_ORDER = """
    set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true),
    set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
    set_config('plan_cache_mode', 'force_generic_plan', true), set_config('jit', 'off', true)
"""
"""Settings of a transaction whose statements read indexes in their order, whatever the statistics say."""

SUBMIT_LOCK = 730_158
"""Class of the advisory locks under which the unfinished jobs of one user are counted."""


PRIORITIES = {"high": 0, "normal": 1, "low": 2}
"""The numbers of the priorities: jobs with a smaller one are claimed first."""

_WAITING_RUN = """
    coalesce(
        job.schedule_id IS NOT NULL AND job.attempt = 0 AND job.not_before > now(),
        false
    )
"""
"""Condition for a waiting job of the lowest priority: it is a run of a calendar that waits for late rows.

Runs that users start in addition have another priority.
"""

_NEWEST = 1000
"""How many more jobs of one user than the limit are read to find those that count."""

# Hundreds of thousands of runs can wait for late rows, and the user's other calls wait for the count. So each
# part reads an index in its order (see INDEX_ORDER), and ends after some rows. Jobs of the lowest priority do
# not count behind as many newer ones of the user. Each index begins with the user: while an old snapshot is
# open, the entries of jobs that have ended stay in it, and a call must not read those of all users.
_COUNTED = f"""
    (
        SELECT 1 FROM export_jobs AS job
        WHERE job.user_id = :user_id AND job.status = 'processing' LIMIT :user_limit
    ) UNION ALL (
        SELECT 1 FROM export_jobs AS job
        WHERE job.user_id = :user_id AND {_WAITING} AND job.priority < {PRIORITIES["low"]}
        ORDER BY job.priority, job.created_at, job.id LIMIT :user_limit
    ) UNION ALL (
        SELECT 1 FROM (
            SELECT schedule_id, attempt, not_before FROM export_jobs AS job
            WHERE job.user_id = :user_id AND {_WAITING} AND job.priority = {PRIORITIES["low"]}
            ORDER BY job.created_at DESC, job.id DESC LIMIT :user_limit + {_NEWEST}
        ) AS job WHERE NOT {_WAITING_RUN} LIMIT :user_limit
    ) UNION ALL (
        SELECT 1 FROM export_jobs AS job
        WHERE job.user_id = :user_id AND {_ENDED_UNSTARTED} LIMIT :user_limit
    )
"""


def insert_jobs(columns: Iterable[str], *, admitted: bool, limited: bool) -> Statement:
    """Return the statement that inserts jobs.

    All jobs are one parameter, ``:jobs``, a JSON array: with thousands of parameters most of the time would
    go into preparing them.

    Args:
        columns: the columns that each job has.
        admitted: whether the jobs are admitted. A row of the same job that is not admitted becomes admitted.
        limited: insert nothing if the user ``:user_id`` already has ``:user_limit`` unfinished jobs. Runs of
            calendars count from the time on at which they can start: their number follows from the calendars.
    """
    names = ", ".join(f'"{name}"' for name in columns)
    limit = f"""
        WHERE (SELECT count(*) FROM ({_COUNTED}) AS unfinished) < :user_limit
    """
    on_conflict = """
        DO UPDATE SET
            admitted_at = excluded.admitted_at, outcome = excluded.outcome,
            cancel_requested_at = excluded.cancel_requested_at, lease_until = excluded.lease_until,
            traceparent = excluded.traceparent
        WHERE job.admitted_at IS NULL AND job.outcome IS NULL AND job.status = 'pending'
    """
    return Statement(
        f"""
        WITH setting AS MATERIALIZED ({ADMISSION_SETTINGS if admitted else "SELECT"})
        INSERT INTO export_jobs AS job ({names})
        SELECT {names} FROM setting
        CROSS JOIN jsonb_populate_recordset(NULL::export_jobs, CAST(:jobs AS jsonb))
        {limit if limited else ""} ORDER BY id
        ON CONFLICT (id) {on_conflict if admitted else "DO NOTHING"}
        RETURNING job.id, job.user_id, job.export_type, job.format, job.name, job.traceparent
            {f", pg_notify('{WAKE_CHANNEL}', '')" if admitted else ""}
        """
    )


# As with the projector, all jobs are one parameter. Every column is read, so that a value that cannot be
# stored raises here, before an event about its job is published.
LOOK_UP = Statement(
    """
    SELECT asked.id, job.id IS NOT NULL AS known, early.job_id IS NOT NULL AS cancelled,
           job.id IS NULL
           OR (job.admitted_at IS NULL AND job.outcome IS NULL AND job.status = 'pending') AS admissible
    FROM jsonb_populate_recordset(NULL::export_jobs, CAST(:jobs AS jsonb)) AS asked
    LEFT JOIN export_jobs AS job ON job.id = asked.id
    LEFT JOIN early_cancellations AS early ON early.job_id = asked.id
    """
)
"""Returns for each job whether it is on record, is still to be admitted, and was cancelled first."""

MARK_ADMITTED = Statement(
    f"""
    UPDATE export_jobs AS job SET admitted_at = now()
    WHERE job.id IN (
        SELECT waiting.id FROM export_jobs AS waiting
        WHERE waiting.id = ANY (CAST(:ids AS uuid[])) AND waiting.admitted_at IS NULL
        FOR UPDATE SKIP LOCKED
    )
    RETURNING job.id, pg_notify('{WAKE_CHANNEL}', '')
    """
)
"""Admits jobs whose ``export.accepted`` Kafka has. A job that is locked is skipped: its request admits it."""

# The pause doubles each time, with the job's age, up to :longest. The rows are sorted, because an index over
# the lease would be changed by each heartbeat of every running job. They are few; 50,000 take 30 to 50 ms.
UNADMITTED = text(
    """
    UPDATE export_jobs AS job
    SET lease_until = now() + greatest(least(now() - job.created_at, :longest), :shortest)
    WHERE job.id = ANY (array(
        SELECT sized.id FROM (
            SELECT due.id, octet_length(job::text) AS bytes,
                sum(octet_length(job::text)) OVER (ORDER BY due.lease_until, due.id) AS total
            FROM (
                SELECT waiting.id, waiting.lease_until FROM export_jobs AS waiting
                WHERE waiting.status = 'pending' AND waiting.admitted_at IS NULL AND waiting.outcome IS NULL
                    AND waiting.lease_until < now()
                ORDER BY waiting.lease_until LIMIT :limit FOR UPDATE SKIP LOCKED
            ) AS due JOIN export_jobs AS job USING (id)
        ) AS sized
        WHERE sized.total - sized.bytes < :bytes
    ))
    RETURNING job.*
    """
)
"""Jobs on record whose request was not admitted in time: their events are to be published again.

Rows are taken until they have ``:bytes`` as text; the row that reaches it is the last one. Only rows within
``:limit`` are measured: the size of a row is that of its values, which must be read for it.
"""

# The early cancellations are read first, and jobs only if there are some. Without statistics the planner
# takes them for thousands, and would read all jobs, with a probe of the whole list for each of them.
CANCELLED_EARLY = Statement(
    """
    WITH early AS MATERIALIZED (
        SELECT job_id FROM early_cancellations WHERE job_id = ANY (CAST(:ids AS uuid[]))
    )
    SELECT job.id FROM export_jobs AS job
    WHERE EXISTS (SELECT FROM early) AND job.id = ANY (array(SELECT job_id FROM early))
    LIMIT 1
    """
)
"""Returns a row if a job of ``:ids`` is on record and has an early cancellation."""

CLAIMS = 7_301_584_222
"""Advisory lock of claims."""

CLAIM_OPTIONS = f"set_config('exporter.reads', 'split', true), {INDEX_ORDER}"
CLAIM_SETTINGS = f"SELECT pg_advisory_xact_lock({CLAIMS}), {CLAIM_OPTIONS}"
"""Settings of a claim's transaction, and the lock that allows one claim at a time.

The lock keeps the limit of a user's slots correct between workers. A worker that is killed during a claim
loses its connection, and with it the lock.

The indexes have the order in which claims read. The number of waiting jobs changes faster than PostgreSQL's
statistics, so the planner could choose a sort or a whole scan. These are switched off, and one generic plan
serves all claims.

``exporter.reads`` tells the trigger of the table that this version reads ``split``.
"""
BEFORE_CLAIM = BEGIN + CLAIM_SETTINGS

# The statement reads jobs of these users: the next :window users in turn, the users of the oldest jobs, and
# the users of abandoned jobs. The recursion is a loose index scan, one index probe for each user: its cost is
# bounded, however many jobs wait. Users who are held back are left out after it: one of them can have many
# jobs, which the index would be read through for one.
#
# The conditions are written twice. The second time they are evaluated on the locked version of the row, which
# another transaction can have changed since the snapshot was taken.
CLAIM = Statement(
    f"""
    WITH RECURSIVE next_user (user_id) AS (
        (
            SELECT job.user_id FROM export_jobs AS job
            WHERE {_WAITING} AND job.user_id > :after AND {_NOT_HELD_BACK}
            ORDER BY job.user_id, job.priority, job.created_at, job.id LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT job.user_id FROM export_jobs AS job
            WHERE {_WAITING} AND job.user_id > next_user.user_id AND {_NOT_HELD_BACK}
            ORDER BY job.user_id, job.priority, job.created_at, job.id LIMIT 1
        )
        FROM next_user WHERE next_user.user_id IS NOT NULL
    ), in_turn AS (
        SELECT user_id FROM next_user LIMIT :window
    ), oldest AS (
        SELECT job.user_id FROM export_jobs AS job
        WHERE {_WAITING} AND {_NOT_HELD_BACK} ORDER BY job.priority, job.created_at LIMIT :window
    ), candidate AS (
        SELECT job.user_id FROM (
            SELECT user_id FROM in_turn WHERE user_id IS NOT NULL
            UNION SELECT user_id FROM oldest
            UNION SELECT job.user_id FROM export_jobs AS job WHERE {_ABANDONED}
        ) AS job
        WHERE {_USER_NOT_HELD_BACK}
    ), parts_running AS (
        SELECT part.job_id, count(*) AS parts FROM export_parts AS part
        WHERE {_PART_RUNNING} GROUP BY part.job_id
    ), running AS (
        SELECT job.user_id, sum(greatest(parts_running.parts, 1))::bigint AS slots
        FROM export_jobs AS job LEFT JOIN parts_running ON parts_running.job_id = job.id
        WHERE {_RUNNING} AND job.lease_until >= now()
            AND job.export_type <> ALL (CAST(:away AS text[])) GROUP BY job.user_id
    ), next_split (job_id) AS (
        (
            SELECT part.job_id FROM export_parts AS part
            WHERE part.status = 'pending' ORDER BY part.job_id LIMIT 1
        )
        UNION ALL
        SELECT (
            SELECT part.job_id FROM export_parts AS part
            WHERE part.status = 'pending' AND part.job_id > next_split.job_id ORDER BY part.job_id LIMIT 1
        )
        FROM next_split WHERE next_split.job_id IS NOT NULL
    ), eligible_part AS (
        SELECT job.id, job.user_id, job.priority, job.created_at, due.attempt, due.number,
               CASE WHEN parts_running.parts IS NULL
                    AND row_number() OVER (PARTITION BY job.id ORDER BY due.number) = 1 THEN 0 ELSE 1
               END AS slots
        FROM (
            SELECT job_id FROM next_split WHERE job_id IS NOT NULL
            UNION SELECT part.job_id FROM export_parts AS part WHERE {_PART_RECOVERABLE}
        ) AS split
        CROSS JOIN LATERAL (
            SELECT job.id, job.user_id, job.priority, job.created_at, job.attempt FROM export_jobs AS job
            WHERE job.id = split.job_id AND {_RUNNING} AND job.lease_until >= now()
                AND job.cancel_requested_at IS NULL AND {_PARTS_NOT_HELD_BACK}
        ) AS job
        CROSS JOIN LATERAL (
            SELECT * FROM (
                SELECT part.attempt, part.number FROM export_parts AS part
                WHERE part.job_id = job.id AND {_PART_DUE} AND {PART_OF_ATTEMPT}
                ORDER BY part.job_id, part.number LIMIT :user_slots
            ) AS waiting
            UNION ALL
            SELECT part.attempt, part.number FROM export_parts AS part
            WHERE part.job_id = job.id AND {_PART_RECOVERABLE} AND {PART_OF_ATTEMPT}
        ) AS due
        LEFT JOIN parts_running ON parts_running.job_id = job.id
    ), eligible AS (
        SELECT due.*, NULL::int AS attempt, NULL::int AS number, 1 AS slots FROM candidate
        CROSS JOIN LATERAL (
            SELECT job.id, job.user_id, job.priority, job.created_at FROM export_jobs AS job
            WHERE job.user_id = candidate.user_id AND {_DUE}
            ORDER BY job.priority, job.created_at, job.id LIMIT :user_slots
        ) AS due
        UNION ALL
        SELECT job.id, job.user_id, job.priority, job.created_at, NULL, NULL, 1 FROM export_jobs AS job
        WHERE {_RECOVERABLE}
        UNION ALL
        SELECT * FROM eligible_part
    ), waiting AS (
        SELECT eligible.*,
               coalesce(running.slots, 0)
               + sum(eligible.slots) OVER (
                   PARTITION BY user_id
                   ORDER BY eligible.slots, eligible.priority, eligible.created_at, eligible.id,
                            eligible.number
                   ROWS UNBOUNDED PRECEDING
               ) AS turn
        FROM eligible LEFT JOIN running USING (user_id)
    ), ranked AS (
        SELECT id, attempt, number FROM waiting WHERE turn <= :user_slots
        ORDER BY priority, turn, created_at, number
    ), chosen AS (
        SELECT ranked.* FROM ranked CROSS JOIN LATERAL (
            SELECT FROM (
                SELECT FROM export_jobs AS job
                WHERE ranked.number IS NULL AND job.id = ranked.id AND (({_DUE}) OR ({_RECOVERABLE}))
                FOR UPDATE SKIP LOCKED
            ) AS locked_job
            UNION ALL
            SELECT FROM (
                SELECT FROM export_parts AS part
                WHERE part.job_id = ranked.id AND part.attempt = ranked.attempt
                    AND part.number = ranked.number AND (({_PART_DUE}) OR ({_PART_RECOVERABLE}))
                FOR UPDATE SKIP LOCKED
            ) AS locked_part
        ) AS locked
        LIMIT :limit
    ), claimed_part AS (
        UPDATE export_parts AS part
        SET status = 'processing', part_attempt = part_attempt + 1, worker = :worker,
            failures = failures + (status = 'processing')::int, lease_until = now() + :lease,
            row_count = NULL, not_before = NULL, error_code = NULL, error_message = NULL
        FROM chosen
        WHERE part.job_id = chosen.id AND part.attempt = chosen.attempt AND part.number = chosen.number
        RETURNING part.*
    ), claimed AS (
        UPDATE export_jobs AS job
        SET status = 'processing', attempt = attempt + 1, worker = :worker,
            failures = failures + (status = 'processing')::int,
            lease_until = now() + :lease, started_at = now(), row_count = NULL, not_before = NULL,
            error_code = NULL, error_message = NULL
        WHERE job.id = ANY (array(SELECT id FROM chosen WHERE number IS NULL))
        RETURNING job.*
    )
    SELECT turn.after, rest.is_left, work.*, {run_zone("work")}
    FROM (
        SELECT CASE WHEN count(user_id) = :window THEN max(user_id) ELSE '' END AS after FROM in_turn
    ) AS turn CROSS JOIN (
        SELECT count(*) > (SELECT count(*) FROM chosen) OR coalesce(bool_or(turn >= :user_slots), false)
            AS is_left
        FROM waiting
    ) AS rest LEFT JOIN (
        SELECT claimed.*, now() AS now, NULL::jsonb AS part FROM claimed
        UNION ALL
        SELECT job.*, now(), to_jsonb(part) FROM claimed_part AS part
        JOIN export_jobs AS job ON job.id = part.job_id
    ) AS work ON true
    """
)
"""Returns one row for each claimed job or part, or one row of NULLs.

``part`` is the claimed part; it is NULL for a job. A job whose parts run takes as many of its user's slots as
parts run, but at least one: its first running part takes the slot of the job itself.

Parts belong to an export that runs, so that pauses of claims do not hold them back.

``after`` is the user after whom the next claim begins. It is empty unless more users wait than ``:window``.

``is_left`` is false if no work waits any more for a slot: neither for one of a worker, nor for one of a user.
"""

RELEASE_UNREADABLE = text(
    """
    UPDATE export_jobs AS job
    SET status = CASE WHEN age.can_wait THEN 'pending' ELSE job.status END,
        worker = CASE WHEN age.can_wait THEN NULL ELSE job.worker END,
        outcome = CASE WHEN NOT age.can_wait THEN jsonb_build_object(
            'job_id', job.id, 'user_id', job.user_id, 'export_type', job.export_type, 'format', job.format,
            'name', job.name, 'attempt', job.attempt, 'status', 'failed', 'started_at', job.started_at,
            'completed_at', now(), 'error', CAST(:error AS jsonb)
        ) END,
        lease_until = now(),
        not_before = now() + least(interval '5 s' * power(2, least(job.attempt, 10)), interval '2 min')
    FROM (
        SELECT id, created_at > now() - CAST(:kept_for AS interval) AS can_wait FROM export_jobs
        WHERE id = ANY (CAST(:ids AS uuid[]))
    ) AS age
    WHERE job.id = age.id AND job.worker = :worker AND job.status = 'processing' AND job.outcome IS NULL
    """
)
"""Releases jobs that the worker cannot read, with a growing delay. A job that waited too long has failed."""

STORE_OUTCOME = Statement(
    """
    UPDATE export_jobs AS job SET outcome = CAST(:outcome AS jsonb), lease_until = now() + :lease
    WHERE job.id = :id AND job.attempt = :attempt AND job.worker = :worker
        AND job.status = 'processing' AND job.outcome IS NULL
    RETURNING job.id
    """
)

LOCK_HELD = text(
    """
    SELECT job.id FROM export_jobs AS job
    WHERE job.id = :id AND job.attempt = :attempt AND job.worker = :worker
        AND job.status = 'processing' AND job.outcome IS NULL
    FOR UPDATE
    """
)
"""Locks a job if the claim still holds it."""

DELETE_EARLIER_FILES = text(
    "DELETE FROM export_files WHERE job_id = CAST(:id AS uuid) AND attempt < :attempt"
)
"""Removes the lists of the files of earlier attempts."""

RECORD_FILES = text(
    """
    INSERT INTO export_files (
        job_id, attempt, result, bucket, number, key, file_name, content_type, row_count, file_size, sha256
    )
    SELECT CAST(:id AS uuid), :attempt, :result, :bucket, file.number, file.key, file.file_name,
           file.content_type, file.row_count, file.file_size, file.sha256
    FROM jsonb_populate_recordset(NULL::export_files, CAST(:files AS jsonb)) AS file
    ON CONFLICT (job_id, number, key) DO UPDATE SET attempt = excluded.attempt, result = excluded.result
    """
)
"""Writes the list of an attempt's files. They belong to the object ``:result``, the manifest."""

RENEW = Statement(
    """
    UPDATE export_jobs AS job
    SET lease_until = now() + :lease, row_count = held.row_count,
        estimated_rows = coalesce(held.estimated_rows, job.estimated_rows),
        stages = CAST(held.stages AS jsonb)
    FROM unnest(
        CAST(:ids AS uuid[]), CAST(:attempts AS int[]), CAST(:rows AS bigint[]), CAST(:estimates AS bigint[]),
        CAST(:stages AS text[])
    ) AS held (id, attempt, row_count, estimated_rows, stages)
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

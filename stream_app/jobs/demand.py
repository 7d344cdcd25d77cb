"""The function with which the scaler counts: how many slots the jobs that run or can run need.

Of each user it counts at most the slots that a user has, with the parts of exports. Jobs that are not
admitted, are not due, or whose claims are paused are left out. Those of a paused source, and bundles with a
paused dataset, are not, because the database does not know which datasets a source or a bundle has. It costs
a few index probes for each user.

The function has the rights of the owner of the tables, and returns a number only. So the role of the scaler
reads no table.
"""

DEMAND = """
    DO $do$ BEGIN EXECUTE format($create$
        CREATE OR REPLACE FUNCTION exporter_demand(user_slots integer) RETURNS bigint
        LANGUAGE sql STABLE SECURITY DEFINER SET search_path = %%I, pg_temp AS $$
        WITH RECURSIVE next_user (user_id) AS (
            (
                SELECT job.user_id FROM export_jobs AS job
                WHERE job.status = 'pending' AND job.outcome IS NULL ORDER BY job.user_id LIMIT 1
            )
            UNION ALL
            SELECT (
                SELECT job.user_id FROM export_jobs AS job
                WHERE job.status = 'pending' AND job.outcome IS NULL AND job.user_id > next_user.user_id
                ORDER BY job.user_id LIMIT 1
            )
            FROM next_user WHERE next_user.user_id IS NOT NULL
        ), waiting AS (
            SELECT next_user.user_id FROM next_user CROSS JOIN LATERAL (
                SELECT FROM export_jobs AS job
                WHERE job.user_id = next_user.user_id AND job.status = 'pending' AND job.outcome IS NULL
                    AND job.admitted_at IS NOT NULL AND job.cancel_requested_at IS NULL
                    AND (job.not_before IS NULL OR job.not_before <= now())
                    AND NOT EXISTS (
                        SELECT FROM claim_pauses AS pause WHERE pause.scope IN (
                            'everything', 'user:' || job.user_id, 'dataset:' || job.export_type
                        )
                    )
                ORDER BY job.priority, job.created_at, job.id LIMIT user_slots
            ) AS due
        ), parts AS (
            SELECT part.job_id, count(*) FILTER (WHERE part.status = 'processing') AS running,
                count(*) FILTER (WHERE part.not_before IS NULL OR part.not_before <= now()) AS unfinished
            FROM export_parts AS part WHERE part.status IN ('pending', 'processing') GROUP BY part.job_id
        ), running AS (
            SELECT job.user_id, greatest(parts.running, 1) AS running, CASE
                WHEN EXISTS (
                    SELECT FROM claim_pauses AS pause WHERE pause.scope IN (
                        'everything', 'user:' || job.user_id, 'dataset:' || job.export_type
                    )
                ) THEN 0
                ELSE greatest(parts.unfinished, 1) - greatest(parts.running, 1)
            END AS waiting
            FROM export_jobs AS job LEFT JOIN parts ON parts.job_id = job.id
            WHERE job.status = 'processing' AND job.outcome IS NULL
        ), of_users AS (
            SELECT found.user_id, sum(found.running) AS running, sum(found.waiting) AS waiting
            FROM (SELECT * FROM running UNION ALL SELECT waiting.user_id, 0, 1 FROM waiting) AS found
            GROUP BY found.user_id
        )
        SELECT coalesce(sum(greatest(running, least(user_slots, running + waiting))), 0)::bigint FROM of_users
        $$
    $create$, current_schema()); END $do$
"""

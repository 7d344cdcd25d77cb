"""SQL of the outbox of deliveries."""

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from stream_app.addresses import MAX_RECIPIENTS, MAX_URL
from stream_app.notifications.models import READ_BY_PEOPLE, Channel

_ONCE = ", ".join(f"'{channel}'" for channel in sorted(READ_BY_PEOPLE))

_RECIPIENTS = "CASE jsonb_typeof(recipients) WHEN 'array' THEN recipients ELSE '[]' END"
_CHANNEL = f"coalesce(lower(substring(recipient from '(?i)^(slack|teams):')), '{Channel.MAIL}')"
_HOST_OF_CHAT = "coalesce(lower(substring(recipient from '^[A-Za-z]+:[A-Za-z]+://([^/?#]+)')), '')"
_HOST_OF_WEBHOOK = "coalesce(lower(substring(webhook from '^[A-Za-z]+://([^/?#]+)')), '')"
_TOPIC = "coalesce('schedule:' || schedule_id, 'user:' || user_id)"

MAX_MAIL = 254
MAX_CHAT = MAX_URL + 6

# The addresses of a refused request can be any text. Their length is limited here so that they can be
# stored, and the sender validates them. Mails above the user's limit are recorded as skipped.
PLAN = text(
    f"""
    WITH ended AS (
        SELECT *, {_TOPIC} AS topic
        FROM export_jobs WHERE id = ANY(:ids) AND status IN ('completed', 'failed')
    ), sent AS (
        SELECT user_id, count(*) AS mails FROM deliveries
        WHERE channel = '{Channel.MAIL}' AND created_at > now() - interval '1 day' AND status <> 'skipped'
            AND user_id IN (SELECT user_id FROM ended)
        GROUP BY user_id
    ), item AS (
        SELECT ended.id, recipient, place, status, topic, user_id, {_CHANNEL} AS channel
        FROM ended CROSS JOIN jsonb_array_elements_text({_RECIPIENTS})
            WITH ORDINALITY AS item (recipient, place)
        WHERE place <= {MAX_RECIPIENTS}
    ), mail AS (
        SELECT item.*, coalesce(sent.mails, 0)
               + row_number() OVER (PARTITION BY item.user_id ORDER BY id, place) > :mail_limit AS over
        FROM item LEFT JOIN sent ON sent.user_id = item.user_id
        WHERE channel = '{Channel.MAIL}' AND octet_length(recipient) <= {MAX_MAIL}
    ), planned AS (
        SELECT id AS job_id, '{Channel.MAIL}' AS channel, recipient AS address, status AS event, topic,
               user_id, '' AS host, over FROM mail
        UNION ALL
        SELECT id, channel, recipient, status, topic, user_id, {_HOST_OF_CHAT}, false
        FROM item WHERE channel <> '{Channel.MAIL}' AND octet_length(recipient) <= {MAX_CHAT}
        UNION ALL
        SELECT id, '{Channel.WEBHOOK}', webhook, status, topic, user_id, {_HOST_OF_WEBHOOK}, false
        FROM ended WHERE octet_length(webhook) <= {MAX_URL}
    )
    INSERT INTO deliveries (
        job_id, channel, address, event, topic, user_id, host, give_up_at, status, reason, finished_at
    )
    SELECT job_id, channel, address, event, topic, user_id, host, now() + :retry_period,
           CASE WHEN over THEN 'skipped' ELSE 'pending' END,
           CASE WHEN over THEN CAST(:over_limit AS text) END, CASE WHEN over THEN now() END
    FROM planned
    ON CONFLICT DO NOTHING
    """
)

# The recursion is a loose index scan with one index lookup per waiting pair of a user and a host, so a
# thousand deliveries of one user, or to one host, do not delay others. Each claim reads the next :window
# pairs in turn, and the pairs of the deliveries that have been due longest. This bounds the cost of a claim.
CLAIM = text(
    """
    WITH RECURSIVE pair (user_id, host, place) AS (
        (
            SELECT user_id, host, 1 FROM deliveries
            WHERE channel = :channel AND status = 'pending' AND (user_id, host) > (:after_user, :after_host)
            ORDER BY user_id, host LIMIT 1
        )
        UNION ALL
        SELECT following.user_id, following.host, pair.place + 1 FROM pair CROSS JOIN LATERAL (
            SELECT user_id, host FROM deliveries
            WHERE channel = :channel AND status = 'pending' AND (user_id, host) > (pair.user_id, pair.host)
            ORDER BY user_id, host LIMIT 1
        ) AS following
        WHERE pair.place < :window
    ), longest AS (
        SELECT user_id, host FROM deliveries
        WHERE channel = :channel AND status = 'pending' AND not_before <= now()
        ORDER BY not_before LIMIT :window
    ), candidate AS (
        SELECT user_id, host FROM pair UNION SELECT user_id, host FROM longest
    ), busy AS (
        SELECT user_id, host FROM deliveries
        WHERE status = 'sending' AND channel = :channel AND lease_until >= now()
    ), due AS (
        SELECT oldest.* FROM candidate CROSS JOIN LATERAL (
            SELECT id, user_id, host, not_before FROM deliveries
            WHERE channel = :channel AND status = 'pending' AND not_before <= now()
                AND user_id = candidate.user_id AND host = candidate.host
            ORDER BY not_before LIMIT :user_slots
        ) AS oldest
        WHERE NOT EXISTS (
            SELECT FROM receiver_hosts AS away WHERE away.host = candidate.host AND away.not_before > now()
        )
    ), of_users AS (
        SELECT due.*, row_number() OVER (PARTITION BY user_id ORDER BY not_before, id)
               + (SELECT count(*) FROM busy WHERE busy.user_id = due.user_id) AS turn
        FROM due
    ), of_hosts AS (
        SELECT of_users.*, row_number() OVER (PARTITION BY host ORDER BY turn, not_before, id)
               + (SELECT count(*) FROM busy WHERE busy.host = of_users.host) AS turn_of_host
        FROM of_users WHERE turn <= :user_slots
    ), ranked AS (
        SELECT id FROM of_hosts WHERE host = '' OR turn_of_host <= :host_slots ORDER BY turn, not_before
    ), chosen AS (
        SELECT locked.id FROM ranked CROSS JOIN LATERAL (
            SELECT id FROM deliveries
            WHERE deliveries.id = ranked.id AND status = 'pending' FOR UPDATE SKIP LOCKED
        ) AS locked
        LIMIT :limit
    ), claimed AS (
        UPDATE deliveries AS delivery
        SET status = 'sending', attempts = attempts + 1, worker = :worker, lease_until = now() + :lease
        FROM chosen WHERE delivery.id = chosen.id
        RETURNING delivery.*
    )
    SELECT job.*, claimed.id AS delivery_id, claimed.job_id, claimed.address, claimed.event,
           claimed.topic, claimed.host, claimed.attempts, claimed.created_at AS due_at, claimed.revoked_at,
           claimed.progress,
           (
               SELECT files.address FROM deliveries AS files
               WHERE files.job_id = claimed.job_id AND files.channel = 'destination' AND files.status = 'sent'
               LIMIT 1
           ) AS sent_to,
           job.expires_at <= now() AS gone, suppressed.reason AS suppressed,
           EXISTS (
               SELECT FROM unsubscriptions AS known WHERE known.address = lower(claimed.address)
                   AND (known.topic = claimed.topic OR known.topic = 'schedule:' || origin.schedule_id)
           ) AS unsubscribed,
           CASE WHEN NOT schedule.active THEN schedule.paused_reason END AS paused,
           schedule.name AS schedule_name, schedule.schedule, schedule.day AS schedule_day,
           schedule.time_of_day, schedule.timezone AS schedule_zone,
           last.user_id AS last_user, last.host AS last_host, last.place AS last_place
    FROM (SELECT * FROM pair ORDER BY place DESC LIMIT 1) AS last FULL JOIN claimed ON true
    LEFT JOIN export_jobs AS job ON job.id = claimed.job_id
    LEFT JOIN scheduled_exports AS schedule ON schedule.id = job.schedule_id
    LEFT JOIN suppressed_addresses AS suppressed ON suppressed.address = lower(claimed.address)
    LEFT JOIN LATERAL (
        WITH RECURSIVE before (schedule_id, rerun_of) AS (
            SELECT schedule_id, rerun_of FROM export_jobs WHERE id = job.rerun_of
            UNION
            SELECT earlier.schedule_id, earlier.rerun_of
            FROM before JOIN export_jobs AS earlier ON earlier.id = before.rerun_of
            WHERE before.schedule_id IS NULL
        )
        SELECT schedule_id FROM before WHERE schedule_id IS NOT NULL LIMIT 1
    ) AS origin ON true
    """
)
"""Claims deliveries that are due, and returns them with their jobs.

``origin`` is the schedule of the run that a job repeats, possibly through further jobs. An address that is
unsubscribed from the schedule gets no mail about a repeated run either.
"""

# A host that answers is reachable again, whatever the status is.
FINISH = text(
    """
    WITH answered AS (DELETE FROM receiver_hosts WHERE host = :host)
    UPDATE deliveries
    SET status = :status, reason = :reason, lease_until = NULL, finished_at = now()
    WHERE id = :id AND attempts = :attempt AND status IN ('sending', 'ambiguous')
    RETURNING id
    """
)

# Several deliveries that fail at the same time count as one failure of their host.
HOST_AWAY = text(
    """
    INSERT INTO receiver_hosts AS known (host, failures, not_before) VALUES (:host, 1, now() + :first)
    ON CONFLICT (host) DO UPDATE SET
        failures = least(known.failures + 1, 20),
        not_before = now()
            + least(CAST(:first AS interval) * power(2, known.failures), CAST(:longest AS interval))
    WHERE known.not_before <= now()
    RETURNING host
    """
)

POSTPONE = text(
    """
    UPDATE deliveries
    SET status = CASE WHEN now() + :delay < give_up_at THEN 'pending' ELSE 'failed' END,
        finished_at = CASE WHEN now() + :delay < give_up_at THEN NULL ELSE now() END,
        not_before = now() + :delay, reason = :reason, lease_until = NULL
    WHERE id = :id AND attempts = :attempt AND status IN ('sending', 'ambiguous')
    RETURNING status
    """
)

LAST_PROGRESS = text(
    """
    UPDATE deliveries SET lease_until = now() + :lease
    WHERE id = :id AND attempts = :attempt AND status = 'sending' AND now() + :delay >= give_up_at
    RETURNING progress
    """
)

# Nothing of such a claim was begun: its worker did not get the answer, or was about to stop. Meanwhile
# another worker can have settled it, or claimed it again. Each state has its own partial index.
RETURN_UNBEGUN = text(
    """
    UPDATE deliveries
    SET status = 'pending', lease_until = NULL, finished_at = NULL,
        reason = CASE WHEN status = 'sending' THEN reason END
    WHERE id = ANY (array(
        SELECT id FROM deliveries WHERE status = 'sending' AND worker = ANY (CAST(:claims AS text[]))
        UNION ALL
        SELECT id FROM deliveries WHERE status = 'ambiguous' AND worker = ANY (CAST(:claims AS text[]))
    )) AND status IN ('sending', 'ambiguous') AND worker = ANY (CAST(:claims AS text[]))
    RETURNING id
    """
)

RECOVER_EXPIRED = text(
    f"""
    UPDATE deliveries
    SET status = CASE WHEN channel IN ({_ONCE}) THEN 'ambiguous' ELSE 'pending' END,
        finished_at = CASE WHEN channel IN ({_ONCE}) THEN now() END,
        reason = 'the worker died while it was sending', lease_until = NULL
    WHERE status = 'sending' AND lease_until < now()
    RETURNING id, job_id, channel, address, status
    """
)

_TO = f"""(
    CAST(:addresses AS text[]) IS NULL
    OR lower(address) = ANY (ARRAY(SELECT lower(one) FROM unnest(CAST(:addresses AS text[])) AS one))
    AND (channel NOT IN ('{Channel.SLACK}', '{Channel.TEAMS}') OR address = ANY (CAST(:addresses AS text[])))
)"""
"""Condition for the deliveries to an address by its spellings. The case of a mail address is ignored."""

# The files of a job that is no longer completed are removed, or will be in a moment. After the end of a claim
# another job can have begun to write to the same path, so an old claim is not renewed.
RENEW = text(
    """
    UPDATE deliveries AS delivery SET lease_until = now() + :lease, progress = coalesce(:progress, progress)
    FROM export_jobs AS job
    WHERE delivery.id = :id AND delivery.attempts = :attempt AND delivery.status = 'sending'
        AND delivery.lease_until >= now()
        AND job.id = delivery.job_id AND job.status = 'completed' AND job.outcome IS NULL
        AND (job.cancel_requested_at IS NULL OR job.expires_at > now())
    RETURNING delivery.id
    """
).bindparams(bindparam("progress", type_=JSONB(none_as_null=True)))

RECORD = text(
    """
    UPDATE deliveries SET lease_until = now() + :lease, progress = :progress
    WHERE id = :id AND attempts = :attempt AND status = 'sending' RETURNING id
    """
).bindparams(bindparam("progress", type_=JSONB))

RESEND = text(
    f"""
    UPDATE deliveries
    SET status = 'pending', not_before = now(), give_up_at = now() + :retry_period, finished_at = NULL
    WHERE job_id = :job_id AND status IN ('ambiguous', 'failed', 'skipped') AND {_TO}
    RETURNING address
    """
)

KNOWN_ADDRESSES = text(
    f"""
    SELECT address FROM deliveries WHERE job_id = :job_id AND channel <> '{Channel.DESTINATION}'
    UNION SELECT webhook FROM export_jobs WHERE id = :job_id AND webhook IS NOT NULL
    UNION SELECT recipient FROM export_jobs CROSS JOIN jsonb_array_elements_text({_RECIPIENTS}) AS recipient
    WHERE id = :job_id AND recipient IS NOT NULL
    """
)
"""Whom the job has, or will have, deliveries to. Recipients of a refused request can be any JSON values."""

REVOKE_PLANNED = text(
    f"""
    WITH job AS (
        SELECT *, {_TOPIC} AS topic FROM export_jobs
        WHERE id = :job_id AND status IN ('pending', 'processing')
    ), item AS (
        SELECT job.*, recipient, {_CHANNEL} AS channel
        FROM job CROSS JOIN jsonb_array_elements_text({_RECIPIENTS}) AS recipient
    ), planned AS (
        SELECT id AS job_id, channel, recipient AS address, topic, user_id,
               CASE channel WHEN '{Channel.MAIL}' THEN '' ELSE {_HOST_OF_CHAT} END AS host
        FROM item
        WHERE octet_length(recipient)
            <= CASE channel WHEN '{Channel.MAIL}' THEN {MAX_MAIL} ELSE {MAX_CHAT} END
        UNION
        SELECT id, '{Channel.WEBHOOK}', webhook, topic, user_id, {_HOST_OF_WEBHOOK}
        FROM job WHERE octet_length(webhook) <= {MAX_URL}
    )
    INSERT INTO deliveries AS delivery (
        job_id, channel, address, event, topic, user_id, host, give_up_at,
        status, reason, finished_at, revoked_at
    )
    SELECT job_id, channel, address, 'completed', topic, user_id, host, now(),
           'skipped', :reason, now(), now()
    FROM planned WHERE {_TO}
    ON CONFLICT (job_id, channel, address) DO UPDATE SET revoked_at = now()
        WHERE delivery.revoked_at IS NULL
    RETURNING address
    """
)
"""Revokes the deliveries of a job that runs. Its end inserts no others, because they exist then."""

REVOKE = text(
    f"""
    UPDATE deliveries SET revoked_at = now()
    WHERE job_id = :job_id AND revoked_at IS NULL AND channel <> '{Channel.DESTINATION}' AND {_TO}
    RETURNING address
    """
)

RECIPIENT = text(
    """
    SELECT delivery.job_id, delivery.address, delivery.topic, delivery.revoked_at, delivery.user_id,
           job.export_type, job.options, schedule.name AS schedule_name, schedule.schedule,
           schedule.day AS schedule_day, schedule.time_of_day, schedule.timezone AS schedule_zone
    FROM deliveries AS delivery
    LEFT JOIN export_jobs AS job ON job.id = delivery.job_id
    LEFT JOIN scheduled_exports AS schedule ON delivery.topic = 'schedule:' || schedule.id
        AND schedule.id = job.schedule_id
    WHERE delivery.id = :id
    """
)

UNSUBSCRIBED = text(
    """
    SELECT known.address, known.topic
    FROM unnest(CAST(:addresses AS text[]), CAST(:topics AS text[])) AS wanted (address, topic)
    JOIN unsubscriptions AS known ON known.address = wanted.address AND known.topic = wanted.topic
    ORDER BY known.address
    """
)

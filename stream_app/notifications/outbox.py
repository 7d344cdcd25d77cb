"""The outbox of mails, chat messages, webhooks and files to destinations: what is due, in progress, or done.

The transaction that ends a job inserts its deliveries. A worker claims a delivery, commits the claim, sends,
and then records the result. If it dies in between, it is not known whether the delivery arrived. Then a mail
or a chat message becomes ``ambiguous`` and is not sent again. A webhook is sent again, because its receiver
can drop repetitions by their id, and so are files to a destination, because they replace themselves.

Every method raises :class:`~streaming_exporter.errors.Retryable` while the database cannot be reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.addresses import MAX_RECIPIENTS, MAX_URL
from stream_app.chat_addresses import ChatAddress, shown_address, whole_address
from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.notifications.models import (
    READ_BY_PEOPLE,
    Channel,
    DeliveryStatus,
    SuppressedAddress,
    Unsubscription,
)
from stream_app.notifications.notification import Notification, Recipient

log = structlog.get_logger(__name__)

RETRY_PERIOD = timedelta(days=1)
"""How long a delivery is retried."""

WINDOW = 200
"""Limit of pairs (user, host) that one claim reads."""

FIRST_PAIR = ("", "")

UNREADABLE_RETRY = timedelta(minutes=5)
"""Delay after which a delivery that this version cannot read is due again, for another version."""

_ONCE = ", ".join(f"'{channel}'" for channel in sorted(READ_BY_PEOPLE))

# The addresses of a refused request can be any text. Their length is limited here so that they can be
# stored, and the sender validates them. Mails above the user's limit are recorded as skipped.
_PLAN = text(
    f"""
    WITH ended AS (
        SELECT *, coalesce('schedule:' || schedule_id, 'user:' || user_id) AS topic
        FROM export_jobs WHERE id = ANY(:ids) AND status IN ('completed', 'failed')
    ), sent AS (
        SELECT user_id, count(*) AS mails FROM deliveries
        WHERE channel = '{Channel.MAIL}' AND created_at > now() - interval '1 day' AND status <> 'skipped'
            AND user_id IN (SELECT user_id FROM ended)
        GROUP BY user_id
    ), item AS (
        SELECT ended.id, recipient, place, status, topic, user_id,
               coalesce(lower(substring(recipient from '(?i)^(slack|teams):')), '{Channel.MAIL}') AS channel
        FROM ended CROSS JOIN jsonb_array_elements_text(
            CASE jsonb_typeof(recipients) WHEN 'array' THEN recipients ELSE '[]' END
        ) WITH ORDINALITY AS item (recipient, place)
        WHERE place <= {MAX_RECIPIENTS}
    ), mail AS (
        SELECT item.*, coalesce(sent.mails, 0)
               + row_number() OVER (PARTITION BY item.user_id ORDER BY id, place) > :mail_limit AS over
        FROM item LEFT JOIN sent ON sent.user_id = item.user_id
        WHERE channel = '{Channel.MAIL}' AND octet_length(recipient) <= 254
    ), planned AS (
        SELECT id AS job_id, '{Channel.MAIL}' AS channel, recipient AS address, status AS event, topic,
               user_id, '' AS host, over FROM mail
        UNION ALL
        SELECT id, channel, recipient, status, topic, user_id,
               coalesce(lower(substring(recipient from '^[A-Za-z]+:[A-Za-z]+://([^/?#]+)')), ''), false
        FROM item WHERE channel <> '{Channel.MAIL}' AND octet_length(recipient) <= {MAX_URL} + 6
        UNION ALL
        SELECT id, '{Channel.WEBHOOK}', webhook, status, topic, user_id,
               coalesce(lower(substring(webhook from '^[A-Za-z]+://([^/?#]+)')), ''), false
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
_CLAIM = text(
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
           unsubscribed.address IS NOT NULL AS unsubscribed,
           CASE WHEN NOT schedule.active THEN schedule.paused_reason END AS paused,
           schedule.name AS schedule_name, schedule.schedule, schedule.day AS schedule_day,
           schedule.time_of_day, schedule.timezone AS schedule_zone,
           last.user_id AS last_user, last.host AS last_host, last.place AS last_place
    FROM (SELECT * FROM pair ORDER BY place DESC LIMIT 1) AS last FULL JOIN claimed ON true
    LEFT JOIN export_jobs AS job ON job.id = claimed.job_id
    LEFT JOIN scheduled_exports AS schedule ON schedule.id = job.schedule_id
    LEFT JOIN suppressed_addresses AS suppressed ON suppressed.address = lower(claimed.address)
    LEFT JOIN unsubscriptions AS unsubscribed ON unsubscribed.address = lower(claimed.address)
        AND unsubscribed.topic = claimed.topic
    """
)

# A host that answers is reachable again, whatever the status is.
_FINISH = text(
    """
    WITH answered AS (DELETE FROM receiver_hosts WHERE host = :host)
    UPDATE deliveries
    SET status = :status, reason = :reason, lease_until = NULL, finished_at = now()
    WHERE id = :id AND attempts = :attempt AND status IN ('sending', 'ambiguous')
    RETURNING id
    """
)

# Several deliveries that fail at the same time count as one failure of their host.
_HOST_AWAY = text(
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

_POSTPONE = text(
    """
    UPDATE deliveries
    SET status = CASE WHEN now() + :delay < give_up_at THEN 'pending' ELSE 'failed' END,
        finished_at = CASE WHEN now() + :delay < give_up_at THEN NULL ELSE now() END,
        not_before = now() + :delay, reason = :reason, lease_until = NULL
    WHERE id = :id AND attempts = :attempt AND status IN ('sending', 'ambiguous')
    RETURNING status
    """
)

_SETTLE_EXPIRED = text(
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
    CAST(:address AS text) IS NULL OR lower(address) = lower(:address)
    AND (channel NOT IN ('{Channel.SLACK}', '{Channel.TEAMS}') OR address = :address)
)"""
"""Condition for the deliveries to one address. The case of a mail address does not matter."""

# The files of a job that is no longer completed are removed, or will be in a moment.
_RENEW = text(
    """
    UPDATE deliveries AS delivery SET lease_until = now() + :lease, progress = coalesce(:progress, progress)
    FROM export_jobs AS job
    WHERE delivery.id = :id AND delivery.attempts = :attempt AND delivery.status = 'sending'
        AND job.id = delivery.job_id AND job.status = 'completed' AND job.outcome IS NULL
        AND (job.cancel_requested_at IS NULL OR job.expires_at > now())
    RETURNING delivery.id
    """
).bindparams(bindparam("progress", type_=JSONB(none_as_null=True)))

_RECORD = text(
    """
    UPDATE deliveries SET lease_until = now() + :lease, progress = :progress
    WHERE id = :id AND attempts = :attempt AND status = 'sending' RETURNING id
    """
).bindparams(bindparam("progress", type_=JSONB))

_RESEND = text(
    f"""
    UPDATE deliveries
    SET status = 'pending', not_before = now(), give_up_at = now() + :retry_period, finished_at = NULL
    WHERE job_id = :job_id AND status IN ('ambiguous', 'failed', 'skipped') AND {_TO}
    RETURNING address
    """
)

_REVOKE = text(
    f"""
    UPDATE deliveries SET revoked_at = now()
    WHERE job_id = :job_id AND revoked_at IS NULL AND channel <> '{Channel.DESTINATION}' AND {_TO}
    RETURNING address
    """
)


_RECIPIENT = text(
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

_UNSUBSCRIBED = text(
    """
    SELECT known.address, known.topic
    FROM unnest(CAST(:addresses AS text[]), CAST(:topics AS text[])) AS wanted (address, topic)
    JOIN unsubscriptions AS known ON known.address = wanted.address AND known.topic = wanted.topic
    ORDER BY known.address
    """
)


@dataclass(frozen=True, slots=True)
class ExpiredDelivery:
    """A delivery whose claim has expired, with its new status."""

    delivery_id: UUID
    job_id: UUID
    channel: str
    address: str
    status: str


async def insert_deliveries(
    connection: AsyncConnection, ended: Sequence[UUID], *, mail_limit: int = 500
) -> None:
    """Insert the deliveries of jobs that have just ended. Repeated calls insert each delivery once.

    ``mail_limit`` is the limit of mails of one user in 24 hours; mails above it are recorded as skipped.
    """
    if ended:
        reason = f"the user has reached the limit of {mail_limit} mails in 24 hours"
        values = {
            "ids": list(ended),
            "retry_period": RETRY_PERIOD,
            "mail_limit": mail_limit,
            "over_limit": reason,
        }
        await connection.execute(_PLAN, values)


class Outbox:
    """Reads and changes the table ``deliveries`` and those that belong to it."""

    def __init__(self, engine: AsyncEngine, *, worker: str = "", lease: timedelta = timedelta(0)) -> None:
        self._autocommit = autocommitting(engine)
        self._worker = worker
        self.lease = lease
        self._after: dict[Channel, tuple[str, str]] = {}
        """The last pair (user, host) of each channel that the last claim read."""

    async def claim(
        self, channel: Channel, limit: int, *, user_slots: int = 4, host_slots: int = 4
    ) -> list[Notification]:
        """Claim up to ``limit`` deliveries that are due, in turn between users.

        All workers together send at most ``user_slots`` deliveries of one user and ``host_slots`` to one host
        at a time. Two workers that claim at the same moment can exceed that by one claim.
        """
        after = self._after.get(channel, FIRST_PAIR)
        rows = await self._execute(
            _CLAIM,
            channel=channel,
            limit=limit,
            user_slots=user_slots,
            host_slots=host_slots,
            worker=self._worker,
            lease=self.lease,
            after_user=after[0],
            after_host=after[1],
            window=WINDOW,
        )
        window_full = bool(rows) and rows[0].last_place == WINDOW
        self._after[channel] = (rows[0].last_user, rows[0].last_host) if window_full else FIRST_PAIR
        notifications = []
        for row in rows:
            if row.delivery_id is None:
                continue  # nothing was claimed: the row has only the last pair
            try:
                notifications.append(Notification.from_row(row._asdict()))
            except Exception:  # the claim is committed, and the other deliveries must be sent
                log.exception("delivery.read_failed", delivery=str(row.delivery_id), job_id=str(row.job_id))
                await self._execute(
                    _POSTPONE,
                    id=row.delivery_id,
                    attempt=row.attempts,
                    delay=UNREADABLE_RETRY,
                    reason="this version of the service cannot read the delivery",
                )
        return notifications

    async def finish(
        self, notification: Notification, status: DeliveryStatus, reason: str | None = None
    ) -> bool:
        """Record the final status; return whether this claim still held the delivery."""
        return bool(
            await self._execute(
                _FINISH,
                id=notification.delivery_id,
                attempt=notification.attempt,
                status=status,
                reason=reason,
                host=notification.host,
            )
        )

    async def postpone(self, notification: Notification, delay: timedelta, reason: str) -> str | None:
        """Schedule a retry after ``delay``; if that is after the retry period, set the status to failed.

        Returns the new status, or ``None`` if this claim no longer holds the delivery.
        """
        rows = await self._execute(
            _POSTPONE, id=notification.delivery_id, attempt=notification.attempt, delay=delay, reason=reason
        )
        return rows[0].status if rows else None

    async def renew(self, notification: Notification, progress: Mapping[str, Any] | None = None) -> bool:
        """Extend the claim of a delivery that takes long, and record its progress.

        Returns:
            Whether this claim still holds the delivery, and the job still has its files.
        """
        return bool(
            await self._execute(
                _RENEW,
                id=notification.delivery_id,
                attempt=notification.attempt,
                lease=self.lease,
                progress=progress,
            )
        )

    async def record(self, notification: Notification, progress: Mapping[str, Any]) -> bool:
        """Record the progress of a delivery, whether or not the job still has its files.

        Returns:
            Whether this claim still holds the delivery.
        """
        return bool(
            await self._execute(
                _RECORD,
                id=notification.delivery_id,
                attempt=notification.attempt,
                lease=self.lease,
                progress=progress,
            )
        )

    async def host_unreachable(self, host: str, first: timedelta, longest: timedelta) -> None:
        """Start the back-off of a host that did not answer: ``first``, doubled with each further failure."""
        await self._execute(_HOST_AWAY, host=host, first=first, longest=longest)

    async def host_answered(self, host: str) -> None:
        """End the back-off of a host."""
        await self._execute(text("DELETE FROM receiver_hosts WHERE host = :host RETURNING host"), host=host)

    async def settle_expired(self) -> list[ExpiredDelivery]:
        """Settle the deliveries whose claims have expired because their workers died."""
        return [
            ExpiredDelivery(row.id, row.job_id, row.channel, row.address, row.status)
            for row in await self._execute(_SETTLE_EXPIRED)
        ]

    async def suppress(self, address: str, reason: str) -> None:
        """Suppress all further mails to ``address``."""
        values = {"address": address.lower(), "reason": reason}
        await self._insert(SuppressedAddress, values)

    async def unsubscribe(self, address: str, topic: str) -> None:
        """Stop mails about ``topic`` to ``address``."""
        await self._insert(Unsubscription, {"address": address.lower(), "topic": topic})

    async def recipient(self, delivery_id: UUID) -> Recipient | None:
        """Return the recipient and the job of a delivery."""
        rows = await self._execute(_RECIPIENT, id=delivery_id)
        return Recipient.from_row(rows[0]._asdict()) if rows else None

    async def unsubscribed(self, recipients: Mapping[UUID, Sequence[str]]) -> dict[UUID, list[str]]:
        """Return which of the recipients of schedules have unsubscribed from their mails."""
        known = {
            (address.lower(), f"schedule:{schedule}"): (schedule, address)
            for schedule, addresses in recipients.items()
            for address in addresses
        }
        found: dict[UUID, list[str]] = {}
        if known:
            addresses, topics = map(list, zip(*known, strict=True))
            for row in await self._execute(_UNSUBSCRIBED, addresses=addresses, topics=topics):
                schedule, address = known[row.address, row.topic]
                found.setdefault(schedule, []).append(address)
        return found

    async def deliveries_of(self, job_id: UUID) -> Sequence[Row[Any]]:
        """Return all deliveries of a job: rows of ``deliveries``, whose addresses can be secrets."""
        return await self._execute(
            text("SELECT * FROM deliveries WHERE job_id = :job_id ORDER BY channel, address"), job_id=job_id
        )

    async def revoke(self, job_id: UUID, address: str | None = None) -> list[str]:
        """Revoke the links of a job's deliveries; return the addresses of these deliveries, as shown."""
        whole = await self._whole(job_id, address)
        rows = await self._execute(_REVOKE, job_id=job_id, address=whole)
        return [shown_address(row.address) for row in rows]

    async def resend(self, job_id: UUID, address: str | None = None) -> list[str]:
        """Send failed, skipped and ambiguous deliveries of a job again; return their addresses, as shown.

        If ``address`` is given, only its deliveries are sent, and it is no longer suppressed.
        """
        address = await self._whole(job_id, address)
        if address is not None:
            await self._execute(
                text("DELETE FROM suppressed_addresses WHERE address = lower(:address) RETURNING address"),
                address=address,
            )
        rows = await self._execute(_RESEND, job_id=job_id, address=address, retry_period=RETRY_PERIOD)
        return [shown_address(row.address) for row in rows]

    async def _whole(self, job_id: UUID, address: str | None) -> str | None:
        """Return the whole address of a delivery of the job whose address is shown as ``address``."""
        if address is None or ChatAddress.of(address) is None:
            return address
        return whole_address(address, [row.address for row in await self.deliveries_of(job_id)])

    async def _insert(self, table: type[SuppressedAddress | Unsubscription], values: dict[str, str]) -> None:
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                await connection.execute(insert(table).values(values).on_conflict_do_nothing())

    async def _execute(self, statement: Any, **values: Any) -> Sequence[Row[Any]]:
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                return (await connection.execute(statement, values)).all()

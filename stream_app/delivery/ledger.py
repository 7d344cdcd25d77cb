"""The ledger: what is to be sent, what is being sent, and how that went.

A row is made with the change that ends its job, claimed (and committed) before anything is sent, and
confirmed afterwards. What a dead worker held is not known to have arrived: a mail becomes ``ambiguous``
and is left alone, a webhook is sent again, since its receiver can tell repetitions by their id.
Every method raises :class:`~stream_app.errors.Retryable` while the database cannot be reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.delivery.addresses import MAX_RECIPIENTS, MAX_URL
from stream_app.delivery.models import Channel, DeliveryStatus, SuppressedAddress, Unsubscription
from stream_app.delivery.notice import Notice, Recipient
from stream_app.jobs.database import outages_are_retryable

PATIENCE = timedelta(days=1)
"""How long a message is tried."""

# What a request that was refused names as its addresses may be anything: it is bounded here, so that it
# can be stored, and judged by whoever sends.
_PLAN = text(
    f"""
    WITH ended AS (
        SELECT *, coalesce('schedule:' || schedule_id, 'user:' || user_id) AS topic
        FROM export_jobs WHERE id = ANY(:ids) AND status IN ('completed', 'failed')
    ), told AS (
        SELECT ended.id AS job_id, '{Channel.MAIL}' AS channel, recipient AS address, status, topic
        FROM ended CROSS JOIN jsonb_array_elements_text(
            CASE jsonb_typeof(recipients) WHEN 'array' THEN recipients ELSE '[]' END
        ) WITH ORDINALITY AS item (recipient, place)
        WHERE place <= {MAX_RECIPIENTS} AND octet_length(recipient) <= 254
        UNION ALL
        SELECT id, '{Channel.WEBHOOK}', webhook, status, topic FROM ended
        WHERE octet_length(webhook) <= {MAX_URL}
    )
    INSERT INTO deliveries (job_id, channel, address, event, topic, give_up_at)
    SELECT job_id, channel, address, status, topic, now() + :patience FROM told
    ON CONFLICT DO NOTHING
    """
)

_CLAIM = text(
    """
    WITH due AS (
        SELECT id FROM deliveries
        WHERE channel = :channel AND status = 'pending' AND not_before <= now()
        ORDER BY not_before LIMIT :limit FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE deliveries AS delivery
        SET status = 'sending', attempts = attempts + 1, worker = :worker, lease_until = now() + :lease
        FROM due WHERE delivery.id = due.id
        RETURNING delivery.*
    )
    SELECT job.*, claimed.id AS delivery_id, claimed.job_id, claimed.address, claimed.event,
           claimed.topic, claimed.attempts, claimed.created_at AS due_at, claimed.revoked_at,
           job.expires_at <= now() AS gone, suppressed.reason AS suppressed,
           unsubscribed.address IS NOT NULL AS unsubscribed,
           CASE WHEN NOT schedule.active THEN schedule.paused_reason END AS paused
    FROM claimed
    LEFT JOIN export_jobs AS job ON job.id = claimed.job_id
    LEFT JOIN scheduled_exports AS schedule ON schedule.id = job.schedule_id
    LEFT JOIN suppressed_addresses AS suppressed ON suppressed.address = lower(claimed.address)
    LEFT JOIN unsubscriptions AS unsubscribed ON unsubscribed.address = lower(claimed.address)
        AND unsubscribed.topic = claimed.topic
    """
)

_FINISH = text(
    """
    UPDATE deliveries
    SET status = :status, reason = :reason, lease_until = NULL, finished_at = now()
    WHERE id = :id AND attempts = :attempt AND status IN ('sending', 'ambiguous')
    RETURNING id
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

_ABANDON = text(
    f"""
    UPDATE deliveries
    SET status = CASE channel WHEN '{Channel.MAIL}' THEN 'ambiguous' ELSE 'pending' END,
        finished_at = CASE channel WHEN '{Channel.MAIL}' THEN now() END,
        reason = 'the worker that was sending it fell silent', lease_until = NULL
    WHERE status = 'sending' AND lease_until < now()
    RETURNING id, job_id, channel, address, status
    """
)

_RESEND = text(
    """
    UPDATE deliveries
    SET status = 'pending', not_before = now(), give_up_at = now() + :patience, finished_at = NULL
    WHERE job_id = :job_id AND status IN ('ambiguous', 'failed', 'skipped')
        AND (CAST(:address AS text) IS NULL OR lower(address) = lower(:address))
    RETURNING address
    """
)

_REVOKE = text(
    """
    UPDATE deliveries SET revoked_at = now()
    WHERE job_id = :job_id AND revoked_at IS NULL
        AND (CAST(:address AS text) IS NULL OR lower(address) = lower(:address))
    RETURNING address
    """
)


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A message whose sender fell silent, and what became of it."""

    delivery_id: UUID
    job_id: UUID
    channel: str
    address: str
    status: str


async def plan(connection: AsyncConnection, ended: Sequence[UUID]) -> None:
    """Note who is to be told of jobs that have just ended, each once however often this is called."""
    if ended:
        await connection.execute(_PLAN, {"ids": list(ended), "patience": PATIENCE})


class Ledger:
    """All statements about ``deliveries``."""

    def __init__(self, engine: AsyncEngine, *, worker: str = "", lease: timedelta = timedelta(0)) -> None:
        self._engine = engine
        self._worker = worker
        self._lease = lease

    async def claim(self, channel: Channel, limit: int) -> list[Notice]:
        """Take up to ``limit`` messages that are due; they count as being sent from here on."""
        rows = await self._execute(
            _CLAIM, channel=channel, limit=limit, worker=self._worker, lease=self._lease
        )
        return [Notice.of(row._asdict()) for row in rows]

    async def finish(self, notice: Notice, status: DeliveryStatus, reason: str | None = None) -> bool:
        """Record how it went; returns whether the claim was still this one."""
        return bool(
            await self._execute(
                _FINISH, id=notice.delivery_id, attempt=notice.attempt, status=status, reason=reason
            )
        )

    async def postpone(self, notice: Notice, delay: timedelta, reason: str) -> str | None:
        """It certainly did not arrive: it is due again after ``delay``, or has failed if that is too late.

        Returns its status, or ``None`` if the claim was not this one any more.
        """
        rows = await self._execute(
            _POSTPONE, id=notice.delivery_id, attempt=notice.attempt, delay=delay, reason=reason
        )
        return rows[0].status if rows else None

    async def abandon(self) -> list[Abandoned]:
        """Settle what workers that fell silent were sending."""
        return [
            Abandoned(row.id, row.job_id, row.channel, row.address, row.status)
            for row in await self._execute(_ABANDON)
        ]

    async def suppress(self, address: str, reason: str) -> None:
        """Send no more mails to ``address``."""
        values = {"address": address.lower(), "reason": reason}
        await self._insert(SuppressedAddress, values)

    async def unsubscribe(self, address: str, topic: str) -> None:
        """Send no more mails about ``topic`` to ``address``."""
        await self._insert(Unsubscription, {"address": address.lower(), "topic": topic})

    async def recipient(self, delivery_id: UUID) -> Recipient | None:
        """Whom a message went to, and about which job."""
        rows = await self._execute(
            text("SELECT job_id, address, topic, revoked_at FROM deliveries WHERE id = :id"), id=delivery_id
        )
        return Recipient(rows[0].job_id, rows[0].address, rows[0].topic, rows[0].revoked_at) if rows else None

    async def of_job(self, job_id: UUID) -> Sequence[Row[Any]]:
        """Everything that was or is to be sent about a job: rows of ``deliveries``."""
        return await self._execute(
            text("SELECT * FROM deliveries WHERE job_id = :job_id ORDER BY channel, address"), job_id=job_id
        )

    async def revoke(self, job_id: UUID, address: str | None = None) -> list[str]:
        """Make the links in mails about a job worthless; returns whose."""
        return [row.address for row in await self._execute(_REVOKE, job_id=job_id, address=address)]

    async def resend(self, job_id: UUID, address: str | None = None) -> list[str]:
        """Send again what did not or perhaps not arrive; returns to whom.

        Naming an address lifts its suppression.
        """
        if address is not None:
            await self._execute(
                text("DELETE FROM suppressed_addresses WHERE address = lower(:address) RETURNING address"),
                address=address,
            )
        rows = await self._execute(_RESEND, job_id=job_id, address=address, patience=PATIENCE)
        return [row.address for row in rows]

    async def _insert(self, table: type[SuppressedAddress | Unsubscription], values: dict[str, str]) -> None:
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                await connection.execute(insert(table).values(values).on_conflict_do_nothing())

    async def _execute(self, statement: Any, **values: Any) -> Sequence[Row[Any]]:
        with outages_are_retryable():
            async with self._engine.begin() as connection:
                return (await connection.execute(statement, values)).all()

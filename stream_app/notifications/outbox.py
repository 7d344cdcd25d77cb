"""The outbox of mails, chat messages, webhooks and files to destinations: what is due, in progress, or done.

The transaction that ends a job inserts its deliveries. A worker claims a delivery, commits the claim, sends,
and then records the result. If it dies in between, it is not known whether the delivery arrived. Then a mail
or a chat message becomes ``ambiguous`` and is not sent again. A webhook is sent again, because its receiver
can drop repetitions by their id, and so are files to a destination, because they replace themselves.

Every method raises :class:`~streaming_exporter.errors.Retryable` while the database is unavailable.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from secrets import token_hex
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.addresses import spellings
from stream_app.chat_addresses import shown_address, whole_address
from stream_app.db.engine import autocommitting, outages_are_retryable
from stream_app.notifications import outbox_sql as sql
from stream_app.notifications.models import Channel, DeliveryStatus, SuppressedAddress, Unsubscription
from stream_app.notifications.notification import REVOKED, Notification, Recipient
from stream_app.notifications.shared_paths import (
    OthersAtPath,
    SetsAtPath,
    begin_at_path,
    contents_at_path,
    sets_at_path,
)
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

RETRY_PERIOD = timedelta(days=1)
"""How long a delivery is retried."""

WINDOW = 200
"""Limit of pairs (user, host) that one claim reads."""

FIRST_PAIR = ("", "")

UNREADABLE_RETRY = timedelta(minutes=5)
"""Delay after which a delivery that this version cannot read is due again, for another version."""


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
        await connection.execute(sql.PLAN, values)


class Outbox:
    """Reads and changes the table ``deliveries`` and those that belong to it."""

    def __init__(self, engine: AsyncEngine, *, worker: str = "", lease: timedelta = timedelta(0)) -> None:
        self._autocommit = autocommitting(engine)
        self.lease = lease
        # Each claim has its own name, which contains a random part: an earlier process can have had the same
        # worker name.
        process = f"{worker}/{token_hex(4)}"
        self._claims = (f"{process}/{number}" for number in count(1))
        self._last: dict[Channel, str] = {}
        """The last claim of each channel."""
        self._unstarted: dict[str, float] = {}
        """The claims of which nothing was begun, and until when such a claim can still be committed."""
        self._after: dict[Channel, tuple[str, str]] = {}
        """The last pair (user, host) of each channel that the last claim read."""

    async def claim(
        self, channel: Channel, limit: int, *, user_slots: int = 4, host_slots: int = 4
    ) -> list[Notification]:
        """Claim up to ``limit`` deliveries that are due, in turn between users.

        All workers together send at most ``user_slots`` deliveries of one user and ``host_slots`` to one host
        at a time. Two workers that claim at the same moment can exceed that by one claim.

        First it releases the deliveries of earlier claims whose answers were lost.
        """
        await self.release_unstarted()
        after = self._after.get(channel, FIRST_PAIR)
        rows = await self._claim(
            channel,
            limit=limit,
            user_slots=user_slots,
            host_slots=host_slots,
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
                with suppress(Retryable):  # the claim expires
                    await self._execute(
                        sql.POSTPONE,
                        id=row.delivery_id,
                        attempt=row.attempts,
                        delay=UNREADABLE_RETRY,
                        reason="this version of the service cannot read the delivery",
                    )
        return notifications

    async def _claim(self, channel: Channel, **values: Any) -> Sequence[Row[Any]]:
        """Claim under a name of its own. If the answer is lost, nothing of the claim can begin."""
        claim = self._last[channel] = next(self._claims)
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                try:
                    values |= {"channel": channel, "worker": claim}
                    return (await connection.execute(sql.CLAIM, values)).all()
                except BaseException:
                    self.note_unstarted(channel)
                    raise

    def note_unstarted(self, channel: Channel) -> None:
        """Note that nothing of the last claim over ``channel`` was begun, and nothing will be."""
        self._unstarted[self._last[channel]] = time.monotonic() + self.lease.total_seconds()

    async def release_unstarted(self) -> None:
        """Release deliveries that were claimed and not started.

        A mail would be ambiguous otherwise, although nothing was sent. It is repeated for a while, because
        the server can commit a claim after its connection was lost.
        """
        if not self._unstarted:
            return
        now = time.monotonic()
        if found := await self._execute(sql.RETURN_UNBEGUN, claims=list(self._unstarted)):
            log.warning("delivery.claim_returned", deliveries=len(found))
        self._unstarted = {claim: until for claim, until in self._unstarted.items() if until > now}

    async def finish(
        self, notification: Notification, status: DeliveryStatus, reason: str | None = None
    ) -> bool:
        """Record the final status; return whether this claim still held the delivery."""
        return bool(
            await self._execute(
                sql.FINISH,
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
            sql.POSTPONE,
            id=notification.delivery_id,
            attempt=notification.attempt,
            delay=delay,
            reason=reason,
        )
        return rows[0].status if rows else None

    async def progress_if_last(
        self, notification: Notification, delay: timedelta
    ) -> Mapping[str, Any] | None:
        """Return the progress of a delivery that is not retried, because ``delay`` ends after its time.

        Returns:
            ``None`` if it is retried, or this claim no longer holds it. This claim is extended.
        """
        rows = await self._execute(
            sql.LAST_PROGRESS,
            id=notification.delivery_id,
            attempt=notification.attempt,
            delay=delay,
            lease=self.lease,
        )
        return (rows[0].progress or {}) if rows else None

    async def renew(self, notification: Notification, progress: Mapping[str, Any] | None = None) -> bool:
        """Extend the claim of a delivery that takes long, and record its progress.

        Returns:
            Whether this claim still holds the delivery, and the job still has its files.
        """
        return bool(
            await self._execute(
                sql.RENEW,
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
                sql.RECORD,
                id=notification.delivery_id,
                attempt=notification.attempt,
                lease=self.lease,
                progress=progress,
            )
        )

    async def begin_at_path(
        self,
        notification: Notification,
        progress: Mapping[str, Any],
        *,
        is_removal: bool = False,
        is_free: bool = False,
        key: Literal["path", "manifest"] = "path",
    ) -> OthersAtPath:
        """Let a delivery begin to write to a path that other jobs have too, or to remove its files there.

        See :func:`~stream_app.notifications.shared_paths.begin_at_path`.
        """
        return await begin_at_path(
            self._autocommit,
            notification,
            progress,
            lease=self.lease,
            is_removal=is_removal,
            is_free=is_free,
            key=key,
        )

    async def sets_at_path(self, notification: Notification, progress: Mapping[str, Any]) -> SetsAtPath:
        """Return how many files the sets of other jobs have at the path of a delivery."""
        return await sets_at_path(self._autocommit, notification, progress)

    async def contents_at_path(
        self, notification: Notification, progress: Mapping[str, Any], number: int
    ) -> list[tuple[int, str]]:
        """Return the sizes and digests that files of other jobs with this number have there."""
        return await contents_at_path(self._autocommit, notification, progress, number)

    async def host_unreachable(self, host: str, first: timedelta, longest: timedelta) -> None:
        """Start the back-off of a host that did not answer: ``first``, doubled with each further failure."""
        await self._execute(sql.HOST_AWAY, host=host, first=first, longest=longest)

    async def host_answered(self, host: str) -> None:
        """End the back-off of a host."""
        await self._execute(text("DELETE FROM receiver_hosts WHERE host = :host RETURNING host"), host=host)

    async def recover_expired(self) -> list[ExpiredDelivery]:
        """Recover the deliveries whose claims have expired because their workers died."""
        return [
            ExpiredDelivery(row.id, row.job_id, row.channel, row.address, row.status)
            for row in await self._execute(sql.RECOVER_EXPIRED)
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
        rows = await self._execute(sql.RECIPIENT, id=delivery_id)
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
            for row in await self._execute(sql.UNSUBSCRIBED, addresses=addresses, topics=topics):
                schedule, address = known[row.address, row.topic]
                found.setdefault(schedule, []).append(address)
        return found

    async def deliveries_of(self, job_id: UUID) -> Sequence[Row[Any]]:
        """Return all deliveries of a job: rows of ``deliveries``, whose addresses can be secrets."""
        return await self._execute(
            text("SELECT * FROM deliveries WHERE job_id = :job_id ORDER BY channel, address"), job_id=job_id
        )

    async def revoke(self, job_id: UUID, address: str | None = None) -> list[str] | None:
        """Revoke the links of a job's deliveries; return their addresses in order, as shown.

        While the job runs, its later links are revoked. Returns ``None`` if it does not have ``address``.
        """
        addresses = None
        if address is not None:
            known = [row.address for row in await self._execute(sql.KNOWN_ADDRESSES, job_id=job_id)]
            addresses = spellings(whole_address(address, known))
            if not {item.lower() for item in addresses} & {item.lower() for item in known}:
                return None
        # The job can end between both: then its end has inserted what the second one revokes.
        values = {"job_id": job_id, "addresses": addresses}
        planned = await self._execute(sql.REVOKE_PLANNED, **values, reason=REVOKED)
        rows = [*planned, *await self._execute(sql.REVOKE, **values)]
        return sorted(shown_address(row.address) for row in rows)

    async def resend(self, job_id: UUID, address: str | None = None) -> list[str]:
        """Send failed, skipped and ambiguous deliveries of a job again; return their addresses in order.

        If ``address`` is given, only its deliveries are sent, and it is no longer suppressed.
        """
        addresses = None
        if address is not None:
            known = [row.address for row in await self.deliveries_of(job_id)]
            addresses = spellings(whole_address(address, known))
            await self._execute(
                text("DELETE FROM suppressed_addresses WHERE address = ANY(:addresses) RETURNING address"),
                addresses=[item.lower() for item in addresses],
            )
        rows = await self._execute(sql.RESEND, job_id=job_id, addresses=addresses, retry_period=RETRY_PERIOD)
        return sorted(shown_address(row.address) for row in rows)

    async def _insert(self, table: type[SuppressedAddress | Unsubscription], values: dict[str, str]) -> None:
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                await connection.execute(insert(table).values(values).on_conflict_do_nothing())

    async def _execute(self, statement: Any, **values: Any) -> Sequence[Row[Any]]:
        with outages_are_retryable():
            async with self._autocommit.connect() as connection:
                return (await connection.execute(statement, values)).all()

"""Sends what the ledger has due: claim, send, confirm."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog

from stream_app.addresses import Addressing
from stream_app.keyed_hashes import AddressHash
from stream_app.notifications.channel import Refused, Transport, Uncertain, Undelivered
from stream_app.notifications.models import Channel, DeliveryStatus
from stream_app.notifications.outbox import Ledger
from stream_app.notifications.templates import Notice
from stream_app.observability import metrics, tracing
from stream_app.retries import retry_until_possible
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected, Retryable

log = structlog.get_logger(__name__)

SLOTS = {Channel.MAIL: 4, Channel.WEBHOOK: 16}
"""Messages that one worker sends at a time: mails go to one server, webhooks to many that may be slow."""

USER_SLOTS = {Channel.MAIL: 2, Channel.WEBHOOK: 4}
"""Messages of one user that all workers together send at a time."""

HOST_SLOTS = 4
"""Webhooks for one host that all workers together send at a time."""

POLL_SECONDS = 1.0

SETTLE_SECONDS = 5.0
"""How long the record of what is being sent may take, once its own time-out is over."""

REST_SECONDS = 5.0
"""How long the transports may take to close their connections when the worker stops."""

FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(minutes=15)

NOT_SET_UP = {
    Channel.MAIL: "no mail server is set up (EXPORTER_SMTP_HOST)",
    Channel.WEBHOOK: "webhooks are not set up (EXPORTER_WEBHOOK_SECRET)",
}


class Courier:
    """Works through the ledger until it is drained; any number of them may."""

    def __init__(
        self,
        ledger: Ledger,
        transports: Mapping[Channel, Transport],
        settings: Settings,
        *,
        poll: float = POLL_SECONDS,
    ) -> None:
        self._ledger = ledger
        self._transports = transports
        self._settings = settings
        self._addressing = Addressing.of(settings)
        self._hash = AddressHash.of(settings)
        self._poll = poll
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    async def work(self, channel: Channel) -> None:
        """Send what is due over ``channel``, :data:`SLOTS` at a time, until drained."""
        transport, running = self._transports.get(channel), set[asyncio.Task[None]]()
        slots = SLOTS[channel]
        while not self._draining:
            running = {task for task in running if not task.done()}
            notices = await self._claim(channel, slots - len(running))
            running |= {self._start(channel, transport, notice) for notice in notices}
            if not running and transport is not None:
                await transport.rest()
            if len(running) < slots:
                await asyncio.sleep(self._poll)
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def watch(self) -> None:
        """Settle what dead workers were sending, for ever."""
        while True:
            try:
                for lost in await self._ledger.abandon():
                    metrics.delivered(lost.channel, lost.status)
                    log.warning(
                        f"delivery.{lost.status}",
                        delivery=str(lost.delivery_id),
                        job_id=str(lost.job_id),
                        channel=lost.channel,
                        address_hash=self._hash(lost.address),
                    )
            except Retryable as error:
                log.warning("delivery.unwatched", error=str(error))
            await asyncio.sleep(self._poll)

    async def drain(self) -> None:
        """Claim nothing more, and let what is being sent be sent: each has its own time-out."""
        self._draining = True
        if self._tasks:
            timeout = self._settings.delivery_timeout_seconds + SETTLE_SECONDS
            await asyncio.wait(self._tasks, timeout=timeout)
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_SECONDS):
                for transport in self._transports.values():
                    await transport.rest()

    async def _claim(self, channel: Channel, limit: int) -> list[Notice]:
        try:
            return await self._ledger.claim(
                channel, limit, user_slots=USER_SLOTS[channel], host_slots=HOST_SLOTS
            )
        except Retryable as error:
            log.warning("delivery.unclaimed", error=str(error))
            return []

    def _start(self, channel: Channel, transport: Transport | None, notice: Notice) -> asyncio.Task[None]:
        task = asyncio.create_task(self._traced(channel, transport, notice))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _traced(self, channel: Channel, transport: Transport | None, notice: Notice) -> None:
        attributes: tracing.Attributes = {
            "exporter.job.id": str(notice.job_id),
            "exporter.delivery.id": str(notice.delivery_id),
            "exporter.delivery.attempt": notice.attempt,
        }
        with tracing.span(
            f"deliver {channel}", kind="CLIENT", parent=notice.traceparent, attributes=attributes
        ) as span:
            span.note({"exporter.delivery.outcome": await self._deliver(channel, transport, notice)})

    async def _deliver(self, channel: Channel, transport: Transport | None, notice: Notice) -> str | None:
        """Send one message and record what became of it, once the database takes that; returns it.

        ``None``: the message was claimed by somebody else meanwhile.
        """
        bound = log.bind(
            delivery=str(notice.delivery_id),
            job_id=str(notice.job_id),
            user_id=notice.user_id,
            channel=channel,
            address_hash=self._hash(notice.address),
            attempt=notice.attempt,
        )
        status, reason = DeliveryStatus.SENT, None
        try:
            notice = self._checked(channel, notice)
            if transport is None:
                raise Rejected(NOT_SET_UP[channel])
            await transport.send(notice)
        except Rejected as error:
            status, reason = DeliveryStatus.SKIPPED, str(error)
        except Undelivered as error:
            tracing.current().failed(error)
            if error.host_away and notice.host:
                await retry_until_possible(self._ledger.host_away, notice.host, FIRST_RETRY, LONGEST_RETRY)
            elif notice.host:
                await retry_until_possible(self._ledger.host_answered, notice.host)
            outcome = await retry_until_possible(
                self._ledger.postpone, notice, backoff(notice.attempt), str(error)
            )
            bound.warning("delivery.postponed", outcome=outcome, error=error.detail)
            if outcome is not None:
                metrics.delivered(channel, outcome)
            return outcome
        except Refused as error:
            tracing.current().failed(error)
            status, reason = DeliveryStatus.FAILED, str(error)
            if error.bad_address:
                await retry_until_possible(self._ledger.suppress, notice.address, reason)
        except Uncertain as error:
            tracing.current().failed(error)
            status, reason = DeliveryStatus.AMBIGUOUS, str(error)
        except Exception as error:
            tracing.current().failed(error)
            bound.exception("delivery.crashed")
            status, reason = DeliveryStatus.AMBIGUOUS, "a fault of the service; its log knows more"
        if await retry_until_possible(self._ledger.finish, notice, status, reason):
            metrics.delivered(channel, status)
            bound.info(f"delivery.{status}", reason=reason)
            return status
        bound.warning("delivery.claim_lost", status=status)
        return None

    def _checked(self, channel: Channel, notice: Notice) -> Notice:
        """The message, for an address as mails carry it.

        Raises:
            Rejected: it must not be sent, for what the recipient wants and the settings allow now.
        """
        if notice.unwanted is not None:
            raise Rejected(notice.unwanted)
        if channel is Channel.WEBHOOK:
            if self._addressing.webhooks:
                self._addressing.webhook(notice.address)
            return notice
        if notice.empty and not self._settings.mail_empty:
            raise Rejected("exports without rows are not mailed (EXPORTER_MAIL_EMPTY)")
        return replace(notice, address=self._addressing.recipient(notice.address, field="recipients"))


def backoff(attempt: int) -> timedelta:
    """Exponential, with jitter, so that an outage does not end in one wave."""
    longest = min(FIRST_RETRY * (1 << min(attempt - 1, 20)), LONGEST_RETRY)
    return longest * random.uniform(0.5, 1)  # noqa: S311

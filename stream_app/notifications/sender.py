"""Sends the deliveries that are due in the outbox: claim, send, record the result."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from stream_app.addresses import AddressRules
from stream_app.keyed_hashes import AddressHash
from stream_app.notifications.channel import (
    DeliveryClient,
    DeliveryFailed,
    DeliveryRefused,
    DeliveryUncertain,
    Interruptible,
    Retractable,
)
from stream_app.notifications.models import READ_BY_PEOPLE, Channel, DeliveryStatus
from stream_app.notifications.notification import Notification
from stream_app.notifications.outbox import Outbox
from stream_app.observability import metrics, tracing
from stream_app.retries import retry_delay, retry_until_possible
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected, Retryable

log = structlog.get_logger(__name__)

SLOTS = {
    Channel.MAIL: 4,
    Channel.WEBHOOK: 16,
    Channel.SLACK: 4,
    Channel.TEAMS: 4,
    Channel.DESTINATION: 4,
}
"""Deliveries that one worker sends at a time: mails to one server, webhooks to many, often slow hosts."""

USER_SLOTS = {
    Channel.MAIL: 2,
    Channel.WEBHOOK: 4,
    Channel.SLACK: 2,
    Channel.TEAMS: 2,
    Channel.DESTINATION: 2,
}
"""Deliveries of one user that all workers together send at a time."""

HOST_SLOTS = 4
"""Webhooks and chat messages to one host, and jobs to one destination, that all workers together send."""

POLL_SECONDS = 1.0
"""Seconds between two looks for due deliveries."""

SETTLE_SECONDS = 5.0
"""Time to record the results after the time-out of the last delivery, when the worker stops."""

REST_SECONDS = 5.0
"""Time-out of closing the connections when the worker stops."""

CRASHED = "an internal error; the log of the service has the details"

NOT_RETRACTED = "what was sent before was possibly not removed"

FIRST_RETRY_DELAY = timedelta(seconds=5)
MAX_RETRY_DELAY = timedelta(minutes=15)

NOT_SET_UP = {
    Channel.MAIL: "no mail server is set up; operators: set EXPORTER_SMTP_HOST",
    Channel.WEBHOOK: "webhooks are not set up; operators: set EXPORTER_WEBHOOK_SECRET",
    Channel.SLACK: "messages to Slack are not set up; operators: set EXPORTER_SLACK_ALLOWED_HOSTS",
    Channel.TEAMS: "messages to Teams are not set up; operators: set EXPORTER_TEAMS_ALLOWED_HOSTS",
    Channel.DESTINATION: "destinations are not set up",
}


class Sender:
    """Sends due deliveries until it is drained. Any number of senders can run at the same time."""

    def __init__(
        self,
        outbox: Outbox,
        clients: Mapping[Channel, DeliveryClient],
        settings: Settings,
        *,
        poll: float = POLL_SECONDS,
    ) -> None:
        self._outbox = outbox
        self._clients = clients
        self._settings = settings
        self._addressing = AddressRules.of(settings)
        self._hash = AddressHash.of(settings)
        self._poll = poll
        self._tasks: set[asyncio.Task[None]] = set()
        self._claiming = {channel: asyncio.Lock() for channel in Channel}
        self._draining = False

    async def run(self, channel: Channel) -> None:
        """Send due deliveries over ``channel``, :data:`SLOTS` at a time, until drained."""
        client, running = self._clients.get(channel), set[asyncio.Task[None]]()
        slots = SLOTS[channel]
        while not self._draining:
            running = {task for task in running if not task.done()}
            async with self._claiming[channel]:
                notifications = await self._claim(channel, slots - len(running))
                running |= {self._start(channel, client, notification) for notification in notifications}
            if not running and client is not None:
                await client.close_idle()
            if len(running) < slots:
                await asyncio.sleep(self._poll)
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    async def recover_expired(self) -> None:
        """Recover the deliveries of dead workers, until drained."""
        while not self._draining:
            try:
                for lost in await self._outbox.recover_expired():
                    metrics.count_delivery(lost.channel, lost.status)
                    log.warning(
                        f"delivery.{lost.status}",
                        delivery=str(lost.delivery_id),
                        job_id=str(lost.job_id),
                        channel=lost.channel,
                        address_hash=self._hash(lost.address),
                    )
            except Retryable as error:
                log.warning("delivery.settle_failed", error=str(error))
            await asyncio.sleep(self._poll)

    async def drain(self) -> None:
        """Stop claiming, and wait for the deliveries in progress, each of which has its own time-out."""
        self._draining = True
        until = time.monotonic() + self._settings.delivery_timeout_seconds + SETTLE_SECONDS
        for client in self._clients.values():
            if isinstance(client, Interruptible):
                client.interrupt()
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                for lock in self._claiming.values():
                    async with lock:
                        pass  # the last claim has ended
                await retry_until_possible(self._outbox.release_unstarted)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0, until - time.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(REST_SECONDS):
                for client in self._clients.values():
                    await client.close_idle()

    async def _claim(self, channel: Channel, limit: int) -> list[Notification]:
        """Claim deliveries. None that comes while the worker stops is begun: :meth:`drain` returns it."""
        try:
            found = await self._outbox.claim(
                channel, limit, user_slots=USER_SLOTS[channel], host_slots=HOST_SLOTS
            )
        except Retryable as error:
            log.warning("delivery.claim_failed", error=str(error))
            return []
        if self._draining:
            self._outbox.note_unstarted(channel)
            return []
        return found

    def _start(
        self, channel: Channel, client: DeliveryClient | None, notification: Notification
    ) -> asyncio.Task[None]:
        task = asyncio.create_task(self._traced(channel, client, notification))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _traced(
        self, channel: Channel, client: DeliveryClient | None, notification: Notification
    ) -> None:
        attributes: tracing.Attributes = {
            "exporter.job.id": str(notification.job_id),
            "exporter.delivery.id": str(notification.delivery_id),
            "exporter.delivery.attempt": notification.attempt,
        }
        with tracing.span(
            f"deliver {channel}", kind="CLIENT", parent=notification.traceparent, attributes=attributes
        ) as span:
            span.set_attributes(
                {"exporter.delivery.outcome": await self._deliver(channel, client, notification)}
            )

    async def _deliver(
        self, channel: Channel, client: DeliveryClient | None, notification: Notification
    ) -> str | None:
        """Send one delivery, record its new status, and return that status.

        Returns ``None`` if another worker has claimed the delivery in the meantime.
        """
        bound = log.bind(
            delivery=str(notification.delivery_id),
            job_id=str(notification.job_id),
            user_id=notification.user_id,
            channel=channel,
            address_hash=self._hash(notification.address),
            attempt=notification.attempt,
        )
        status, reason, detail = DeliveryStatus.SENT, None, None
        try:
            notification = self._checked(channel, notification)
            if client is None:
                raise Rejected(NOT_SET_UP[channel])
            await client.send(notification)
        except Rejected as error:
            status, reason = DeliveryStatus.SKIPPED, str(error)
        except DeliveryFailed as error:
            tracing.current_span().record_error(error)
            if error.host_unreachable and notification.host:
                await retry_until_possible(
                    self._outbox.host_unreachable, notification.host, FIRST_RETRY_DELAY, MAX_RETRY_DELAY
                )
            elif error.host_called and notification.host:
                await retry_until_possible(self._outbox.host_answered, notification.host)
            return await self._postpone(channel, client, notification, error, bound)
        except DeliveryRefused as error:
            tracing.current_span().record_error(error)
            status, reason, detail = DeliveryStatus.FAILED, str(error), error.detail
            if error.bad_address:
                await retry_until_possible(self._outbox.suppress, notification.address, reason)
        except DeliveryUncertain as error:
            tracing.current_span().record_error(error)
            status, reason, detail = DeliveryStatus.AMBIGUOUS, str(error), error.detail
        except Exception as error:
            tracing.current_span().record_error(error)
            bound.exception("delivery.crashed")
            if channel not in READ_BY_PEOPLE:  # its receiver can drop a repetition
                failure = DeliveryFailed(CRASHED, host_called=False, detail=repr(error))
                return await self._postpone(channel, client, notification, failure, bound)
            status, reason = DeliveryStatus.AMBIGUOUS, CRASHED
        if await retry_until_possible(self._outbox.finish, notification, status, reason):
            metrics.count_delivery(channel, status)
            bound.info(f"delivery.{status}", reason=reason, **({"error": detail} if detail else {}))
            return status
        bound.warning("delivery.claim_lost", status=status)
        return None

    async def _postpone(
        self,
        channel: Channel,
        client: DeliveryClient | None,
        notification: Notification,
        error: DeliveryFailed,
        bound: Any,
    ) -> str | None:
        """Let the delivery be due later, or give it up at the end of its time; return its new status.

        What was sent of a delivery that is given up is removed first, while the claim still holds it.
        """
        delay = max(
            retry_delay(notification.attempt - 1, first=FIRST_RETRY_DELAY, longest=MAX_RETRY_DELAY),
            error.retry_after,
        )
        reason = str(error)
        if client is not None and isinstance(client, Retractable):
            progress = await retry_until_possible(self._outbox.progress_if_last, notification, delay)
            if progress is not None:
                try:
                    left = await client.retract(replace(notification, progress=progress))
                except Exception:  # it must end nevertheless
                    bound.exception("delivery.retract_crashed")
                    left = NOT_RETRACTED
                reason = "; ".join(filter(None, (reason, left)))
        outcome = await retry_until_possible(self._outbox.postpone, notification, delay, reason)
        if outcome == DeliveryStatus.FAILED:
            bound.warning("delivery.failed", reason=reason, error=error.detail)
        else:
            bound.warning("delivery.postponed", outcome=outcome, error=error.detail)
        if outcome is not None:
            metrics.count_delivery(channel, outcome)
        return outcome

    def _checked(self, channel: Channel, notification: Notification) -> Notification:
        """Return the notification with its mail address in ASCII form, or its chat in the usual form.

        Raises:
            Rejected: the recipient does not want it, or the settings do not allow it now.
        """
        if channel is Channel.DESTINATION:
            return notification  # its client removes what an earlier attempt has sent
        if notification.skip_reason is not None:
            raise Rejected(notification.skip_reason)
        if channel is Channel.WEBHOOK:
            if self._addressing.webhooks:
                self._addressing.webhook(notification.address)
            return notification
        if notification.empty and not self._settings.mail_empty:
            raise Rejected("exports without rows are not mailed; operators: see EXPORTER_MAIL_EMPTY")
        return replace(
            notification, address=self._addressing.recipient(notification.address, field="recipients")
        )

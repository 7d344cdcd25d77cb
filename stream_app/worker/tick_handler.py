"""Handles ticks: starts the schedules that are due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from faust.types import EventT

from stream_app.kafka.event_producer import EventProducer
from stream_app.schedules.scheduler import Scheduler
from stream_app.settings import Settings
from stream_app.worker.batches import decode_all
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, Topic

log = structlog.get_logger(__name__)

STALE_AFTER = timedelta(minutes=5)
"""A tick that has waited longer was published before an outage."""


@dataclass(frozen=True, slots=True)
class TickHandler:
    """Handles messages of ``exports.ticks``; idempotent, since a run that has started is not due again."""

    scheduler: Scheduler
    emit: EventProducer
    settings: Settings

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Start the runs that are due at each tick of a batch, in order.

        A tick from the future is dead-lettered.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        now = await self.scheduler.now()
        moments: set[datetime] = set()
        read, unread = decode_all(messages, Topic.TICKS)
        refused: list[tuple[EventT[bytes], Unreadable]] = []
        for message, event in read:
            moment = moment_of(event, now)
            if moment - now > timedelta(seconds=self.settings.tick_lead_seconds):
                log.warning("tick.rejected", at=moment.isoformat(), source=event.source, now=now.isoformat())
                refused.append((message, _ahead(moment, now)))
            else:
                moments.add(moment)
        for moment in sorted(moments):
            runs = await self.scheduler.run_due(moment)
            if runs:
                log.info("tick.handled", at=moment.isoformat(), runs=runs)
        for message, reason in [*unread, *refused]:
            await self.emit.dead_letter(message, reason)


def _ahead(moment: datetime, now: datetime) -> Unreadable:
    return Unreadable(
        f"the tick is for {moment.isoformat()}, which is ahead of the state database's clock, "
        f"{now.isoformat()}; correct the clock of the ticker's machine"
    )


def moment_of(event: Event, now: datetime) -> datetime:
    """Return the time that a tick stands for when it is read at ``now``.

    A tick that waited in Kafka during an outage also stands for the minutes since then, so that all runs of
    that time count as missed at once, and not one after the other.
    """
    waited = now - event.time if event.time is not None else timedelta(0)
    return event.tick + waited if waited > STALE_AFTER else event.tick

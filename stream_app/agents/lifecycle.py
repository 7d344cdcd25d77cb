"""The projector: lifecycle events become the job's record."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from faust.types import EventT

from stream_app import metrics, tracing
from stream_app.agents.batches import sorted_out
from stream_app.agents.emitter import Emitter
from stream_app.delivery.ledger import plan
from stream_app.events import Event, Topic
from stream_app.jobs.projection import apply
from stream_app.jobs.states import OUTCOMES
from stream_app.jobs.store import JobStore
from stream_app.jobs.story import story
from stream_app.schedules.outcomes import note

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Projector:
    """Applies messages of ``exports.events``; idempotent, in any order."""

    store: JobStore
    emit: Emitter
    max_failures: int = 5
    """Failed runs in a row that pause their schedule."""

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Apply a batch in one transaction.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        read, unread = sorted_out(messages, Topic.EVENTS)
        outcomes = [event for _, event in read if event.type in OUTCOMES]
        if outcomes:
            with tracing.processing(outcomes) as traced:
                await self._apply(traced)
        for message, reason in unread:
            await self.emit.dead_letter(message, reason)

    async def _apply(self, outcomes: Sequence[Event]) -> None:
        async with self.store.transaction() as connection:
            applied = await apply(connection, outcomes)
            await plan(connection, [job.id for _, job in applied if job.recipients or job.webhook])
            runs = [job.id for _, job in applied if job.schedule_id is not None]
            await note(connection, runs, most_failures=self.max_failures)
        for event, record in applied:
            metrics.ended(OUTCOMES[event.type], event.lifecycle)
            told = story(event.lifecycle, record) | tracing.ids(event.traceparent)
            log.info(f"job.{OUTCOMES[event.type]}", **told)

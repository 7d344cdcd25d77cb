"""The projector: lifecycle events become the job's record."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from faust.types import EventT

from stream_app import metrics
from stream_app.agents.emitter import Emitter
from stream_app.delivery.ledger import plan
from stream_app.errors import Unreadable
from stream_app.events import Topic, decode
from stream_app.jobs.projection import apply
from stream_app.jobs.states import OUTCOMES
from stream_app.jobs.store import JobStore
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
        outcomes = []
        unreadable: list[tuple[EventT[bytes], Unreadable]] = []
        for message in messages:
            try:
                event = decode(message.message.value)
                if event.topic is not Topic.EVENTS:
                    raise Unreadable(f"{event.type} does not belong on {Topic.EVENTS}")
            except Unreadable as error:
                log.warning("message.unreadable", topic=message.message.topic, error=str(error))
                unreadable.append((message, error))
                continue
            if event.type in OUTCOMES:
                outcomes.append(event)
        if outcomes:
            async with self.store.transaction() as connection:
                # In one order everywhere, so that no two transactions wait for each other.
                applied = [
                    event
                    for event in sorted(outcomes, key=lambda event: event.job_id)
                    if await apply(connection, event)
                ]
                ended = [event.job_id for event in applied]
                await plan(connection, ended)
                await note(connection, ended, most_failures=self.max_failures)
            for event in applied:
                metrics.ended(OUTCOMES[event.type], event.lifecycle)
        for message, reason in unreadable:
            await self.emit.dead_letter(message, reason)

"""Admits export requests and cancellations."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from faust.types import EventT

from stream_app import metrics
from stream_app.agents.batches import sorted_out
from stream_app.agents.emitter import Emitter
from stream_app.delivery.addresses import Addressing
from stream_app.events import Event, EventType, LifecycleData, Topic, lifecycle_event
from stream_app.jobs.admission import job_row
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.store import JobStore


@dataclass(frozen=True, slots=True)
class Admission:
    """Turns messages of ``exports.requests`` into jobs; idempotent."""

    store: JobStore
    emit: Emitter
    formats: Collection[str]
    datasets: Collection[str]
    addressing: Addressing

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Admit a batch; returns once all of it is committed, or put aside.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        events, unread = sorted_out(messages, Topic.REQUESTS)
        requests: dict[UUID, Event] = {}
        cancellations: list[Event] = []
        for event in events:
            if event.type is EventType.REQUESTED:
                requests.setdefault(event.job_id, event)
            else:
                cancellations.append(event)
        await self._admit(list(requests.values()), cancellations)
        for message, reason in unread:
            await self.emit.dead_letter(message, reason)

    async def _admit(self, requests: Sequence[Event], cancellations: Sequence[Event]) -> None:
        """One transaction: that a job is accepted is said before it commits, how it ended afterwards."""
        now = datetime.now(UTC)
        async with self.store.transaction() as connection:
            early = await self.store.early_cancellations(connection, [event.job_id for event in requests])
            rows = [
                job_row(
                    event,
                    now=now,
                    formats=self.formats,
                    datasets=self.datasets,
                    addressing=self.addressing,
                    cancelled=event.job_id in early,
                )
                | {"admitted_at": now}
                for event in requests
            ]
            accepted = await self.store.admit(connection, rows)
            await self.emit.all(lifecycle_event(EventType.ACCEPTED, data) for data in accepted)
            ended = [await self.store.cancel(connection, event.job_id) for event in cancellations]
        fresh = {data.job_id for data in accepted}
        for event in requests:
            if event.job_id in fresh:
                metrics.admitted(event.time)
        outcomes = [
            LifecycleData.model_validate(row["outcome"] | {"traceparent": row["traceparent"]})
            for row in rows
            if row["outcome"] and row["id"] in fresh
        ]
        late = await self.store.settle_cancellations([event.job_id for event in (*requests, *cancellations)])
        await self.emit.all(
            lifecycle_event(EVENT_OF[Status(data.status)], data)
            for data in [*outcomes, *filter(None, ended), *late]
        )

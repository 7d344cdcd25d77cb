"""Admits export requests and cancellations."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from faust.types import EventT

from stream_app import metrics, tracing
from stream_app.agents.batches import sorted_out
from stream_app.agents.emitter import Emitter
from stream_app.delivery.addresses import Addressing
from stream_app.errors import Unreadable
from stream_app.events import Event, EventType, LifecycleData, Topic, lifecycle_event
from stream_app.jobs.admission import job_row
from stream_app.jobs.pruning import cutoff
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
    history: timedelta
    """How long jobs are on record at least: older requests are of jobs that may be forgotten."""

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Admit a batch; returns once all of it is committed, or put aside.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        read, unread = sorted_out(messages, Topic.REQUESTS)
        requests: dict[UUID, Event] = {}
        old: dict[UUID, EventT[bytes]] = {}
        cancellations: list[Event] = []
        oldest = cutoff(datetime.now(UTC), self.history)
        for message, event in read:
            if event.type is not EventType.REQUESTED:
                cancellations.append(event)
            elif event.job_id not in requests:
                requests[event.job_id] = event
                if _asked(event, message) < oldest:
                    old[event.job_id] = message
        with tracing.processing([*requests.values(), *cancellations]) as traced:
            asked = dict(zip(requests, traced, strict=False))
            forgotten = await self._admit(asked, old.keys(), traced[len(asked) :])
        refused = [(old[job_id], _too_old(requests[job_id], self.history)) for job_id in forgotten]
        for message, reason in [*unread, *refused]:
            await self.emit.dead_letter(message, reason)

    async def _admit(
        self, asked: Mapping[UUID, Event], old: Collection[UUID], cancellations: Sequence[Event]
    ) -> Collection[UUID]:
        """One transaction: that a job is accepted is said before it commits, how it ended afterwards.

        Returns those of the ``old`` requests that are left out, since whether they had a job is not known.
        """
        now = datetime.now(UTC)
        async with self.store.transaction() as connection:
            forgotten = set(old) - await self.store.known(connection, old)
            requests = [event for job_id, event in asked.items() if job_id not in forgotten]
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
            await self.emit.all([lifecycle_event(EventType.ACCEPTED, data) for data in accepted])
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
            [
                lifecycle_event(EVENT_OF[Status(data.status)], data)
                for data in [*outcomes, *filter(None, ended), *late]
            ]
        )
        return forgotten


def _asked(event: Event, message: EventT[bytes]) -> datetime:
    """When the export was asked for, at the latest: the event may say so, and Kafka since when it has it."""
    published = message.message.timestamp or 0
    known = [datetime.fromtimestamp(published, UTC)] if published > 0 else []
    return min(filter(None, [event.time, *known]), default=datetime.now(UTC))


def _too_old(event: Event, history: timedelta) -> Unreadable:
    return Unreadable(
        f"{event.job_id} was asked for about {history.days} days ago or earlier, and a job of that age may "
        "have been removed from the record; ask again with a new id and time"
    )

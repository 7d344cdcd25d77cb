"""Admits export requests and cancellations."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from faust.types import EventT

from stream_app.jobs.new_job import NewJob, with_creation_order
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.request_validator import RequestValidator
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.submission import accepted_data_of_event
from stream_app.kafka.event_producer import EventProducer
from stream_app.observability import metrics, tracing
from stream_app.worker.batches import decode_all
from stream_app.worker.maintenance.job_cleaner import oldest_admissible
from streaming_exporter.errors import Locked, Unreadable
from streaming_exporter.events import Event, EventType, LifecycleData, Topic, lifecycle_event

log = structlog.get_logger(__name__)

NEWER_ELSEWHERE = frozenset({"unknown_dataset", "unknown_format", "unknown_destination"})
"""Errors of a request that the API has accepted, if the API knows more datasets, formats or destinations."""


@dataclass(frozen=True, slots=True)
class RequestHandler:
    """Turns messages of ``exports.requests`` into jobs; idempotent."""

    queue: JobQueue
    producer: EventProducer
    validator: RequestValidator
    history: timedelta
    """How long jobs stay on record at least. The job of an older request can have been removed."""
    start: Callable[[NewJob], Awaitable[Sequence[LifecycleData] | None]] | None = None
    """Admits a job and starts it here, if no other waits: see :meth:`.Dispatcher.admit`."""

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Admit a batch. It returns once all requests are committed or dead-lettered.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        read, unread = decode_all(messages, Topic.REQUESTS)
        requests: dict[UUID, Event] = {}
        old: dict[UUID, EventT[bytes]] = {}
        cancellations: list[Event] = []
        now = await self.queue.clock.read()
        oldest = oldest_admissible(now, self.history)
        for message, event in read:
            if event.type is not EventType.REQUESTED:
                cancellations.append(event)
            elif event.job_id not in requests:
                requests[event.job_id] = event
                if _requested_at(event, message, now) < oldest:
                    old[event.job_id] = message
        with tracing.process_spans([*requests.values(), *cancellations]) as traced:
            events_by_job = dict(zip(requests, traced, strict=False))
            forgotten, held = await self._admit(events_by_job, old.keys(), traced[len(events_by_job) :])
        for message, event in read:
            if event.type is EventType.REQUESTED and event.job_id in held:
                await self.producer.requeue(Topic.REQUESTS, message)
        refused = [(old[job_id], _too_old(requests[job_id], self.history)) for job_id in forgotten]
        for message, reason in [*unread, *refused]:
            await self.producer.dead_letter(message, reason)

    async def _admit(
        self, events_by_job: Mapping[UUID, Event], old: Collection[UUID], cancellations: Sequence[Event]
    ) -> tuple[Collection[UUID], Collection[UUID]]:
        """Publish ``export.accepted``, commit the jobs, then publish the outcomes of those that have ended.

        No transaction is open while it waits for Kafka.

        Returns:
            The ids of ``old`` requests that are left out, since their job can have been removed; and the ids
            of requests that could not be committed, since another transaction holds the job's row.
        """
        now = await self.queue.clock.read()
        validated = [
            replace(self.validator.job(event, now=now), admitted_at=now) for event in events_by_job.values()
        ]
        jobs = dict(zip(events_by_job, with_creation_order(validated), strict=True))
        known = await self.queue.admission.look_up(list(jobs.values()))
        forgotten = [job_id for job_id in old if not known[job_id].is_known]
        wanted = [
            job_id for job_id in events_by_job if known[job_id].is_admissible and job_id not in forgotten
        ]
        # A job whose cancellation is in the same batch must not start before the cancellation is handled.
        cancelled = {event.job_id for event in cancellations}
        for job_id in wanted:
            if known[job_id].is_known:
                jobs[job_id] = _accepted_by_api(jobs[job_id])
            if known[job_id].is_cancelled or job_id in cancelled:
                jobs[job_id] = jobs[job_id].cancelled()
        await self.producer.publish_all(
            [
                lifecycle_event(EventType.ACCEPTED, accepted_data_of_event(events_by_job[job_id]))
                for job_id in wanted
            ]
        )
        admitted, held = await self._commit([jobs[job_id] for job_id in wanted])
        cancelled.difference_update(data.job_id for data in admitted)
        ended = await self._cancel(sorted(cancelled))
        for data in admitted:
            metrics.observe_admission(events_by_job[data.job_id].time)
        outcomes = [outcome for data in admitted if (outcome := jobs[data.job_id].event_outcome) is not None]
        late = await self.queue.cancellations.apply_early(
            [*events_by_job, *(event.job_id for event in cancellations)]
        )
        await self.producer.publish_all(
            [lifecycle_event(EVENT_OF[Status(data.status)], data) for data in [*outcomes, *ended, *late]]
        )
        # A request that is already on record is published again from its row.
        return forgotten, [job_id for job_id in held if not known[job_id].is_known]

    async def _commit(self, jobs: Sequence[NewJob]) -> tuple[Sequence[LifecycleData], Sequence[UUID]]:
        """Insert jobs; return the data of the admitted ones, and the ids of those whose row is locked."""
        if len(jobs) == 1 and self.start is not None:
            started = await self.start(jobs[0])
            if started is not None:
                return started, []
        try:
            return await self.queue.admission.admit(jobs), []
        except Locked:
            log.warning("jobs.locked", jobs=len(jobs))
        admitted: list[LifecycleData] = []
        held: list[UUID] = []
        for job in jobs:
            try:
                admitted += await self.queue.admission.admit([job])
            except Locked:
                held.append(job.id)
        return admitted, held

    async def _cancel(self, ids: Sequence[UUID]) -> Sequence[LifecycleData]:
        """Cancel jobs; return the outcomes to publish."""
        if not ids:
            return []
        async with self.queue.transaction() as connection:
            ended = [
                await self.queue.cancellations.cancel(connection, job_id, include_stored=True)
                for job_id in ids
            ]
        return [outcome for outcome in ended if outcome is not None]


def _accepted_by_api(job: NewJob) -> NewJob:
    """Return a job that the API has recorded. It does not fail because this worker knows less than the API.

    A change of the datasets file does not reach all machines at once. The job waits until a worker knows its
    dataset and its format; see :meth:`~stream_app.exports.pipeline.Exporter.run`.
    """
    error = job.outcome.error if job.outcome is not None else None
    if error is None or error.code not in NEWER_ELSEWHERE:
        return job
    log.warning("job.unknown_here", job_id=str(job.id), code=error.code, dataset=job.export_type)
    return replace(job, outcome=None)


def _requested_at(event: Event, message: EventT[bytes], now: datetime) -> datetime:
    """Return the earlier one of the event's time and the time at which Kafka received it."""
    published = message.message.timestamp or 0
    known = [datetime.fromtimestamp(published, UTC)] if published > 0 else []
    return min(filter(None, [event.time, *known]), default=now)


def _too_old(event: Event, history: timedelta) -> Unreadable:
    return Unreadable(
        f"{event.job_id} was requested about {history.days} days ago or earlier; the record of such a job "
        "can have been removed; request it again with a new id and time"
    )

"""What happens to jobs that nobody works on: outcomes are published, leftovers swept, files expire."""

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

import structlog

from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import ExporterError, Outage, Retryable
from streaming_exporter.events import Event, EventType, LifecycleData, lifecycle_event

log = structlog.get_logger(__name__)

Emit = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class JobRescuer:
    """Publishes outcomes, and looks after what no attempt holds."""

    store: JobQueue
    storage: ObjectStore
    emit: Emit

    async def publish(self, outcome: LifecycleData) -> None:
        """Say how a job ended; the file of an expired one is removed first.

        Raises:
            Retryable: Kafka or the object store is away; the sealed outcome is due again after a lease.
        """
        kind = EVENT_OF[Status(outcome.status)]
        if kind is EventType.EXPIRED and outcome.key is not None:
            await self.storage.call(self.storage.remove, outcome.key)
        await self.emit(lifecycle_event(kind, outcome))

    async def remove_leftovers(self, job_id: UUID, *, before: int) -> None:
        """Remove what attempts before number ``before`` left, if all that takes can be reached.

        What the attempt that completed the job has is kept, whoever asks.
        """
        try:
            completed_attempt = await self.store.completed_attempt(job_id)
            if completed_attempt is not None:
                before = min(before, completed_attempt)
            await self.storage.call(self.storage.remove_attempts, job_id, before=before)
        except Retryable as error:
            log.warning("leftovers.not_removed", job_id=str(job_id), error=str(error))

    async def discard(self, outcome: LifecycleData) -> None:
        """Remove the file of an attempt that did not come to end its job: its own, and no other.

        Others have other keys, also where a database that has failed over gave them the same number.
        """
        if outcome.key is None:
            return
        try:
            await self.storage.call(self.storage.remove, outcome.key)
        except Retryable as error:
            log.warning("leftovers.not_removed", job_id=str(outcome.job_id), error=str(error))

    async def rescue(self) -> None:
        """End abandoned jobs and files whose time is over; publish outcomes that did not get through.

        What needs the object store comes last, and ends for now where that is away: it answers slowly then.
        """
        unpublished = await self.store.take_unpublished()
        for outcome in unpublished:
            if outcome.status != Status.EXPIRED:
                await self._try_to_publish(outcome)
        exhausted = await self.store.seal_exhausted()
        for outcome in (*exhausted, *await self.store.apply_early_cancellations()):
            await self._try_to_publish(outcome)
        await self.store.delete_old_cancellations()
        for outcome in exhausted:
            await self.remove_leftovers(outcome.job_id, before=outcome.attempt + 1)
        expired = [outcome for outcome in unpublished if outcome.status == Status.EXPIRED]
        random.shuffle(expired)  # one whose file the store refuses to remove is not always the first
        if await self._expire(expired):
            await self._expire(await self.store.seal_expired())

    async def _expire(self, outcomes: Iterable[LifecycleData]) -> bool:
        """Remove files and say so, up to the first outage; returns whether there was none."""
        for outcome in outcomes:
            if not await self._try_to_publish(outcome):
                return False
        return True

    async def _try_to_publish(self, outcome: LifecycleData) -> bool:
        """One that cannot be published now holds no other back; returns whether no part was away."""
        try:
            await self.publish(outcome)
        except ExporterError as error:
            log.warning("outcome.publish_failed", job_id=str(outcome.job_id), error=str(error))
            return not isinstance(error, Outage)
        return True

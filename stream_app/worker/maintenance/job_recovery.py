"""Recovers jobs of dead workers: publishes stored outcomes, ends abandoned jobs, expires files."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import structlog

from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.kafka.publish_event import PublishEvent
from stream_app.retries import JITTER
from stream_app.storage.object_store import ObjectStore
from streaming_exporter.errors import ExporterError, Outage, Retryable
from streaming_exporter.events import EventType, LifecycleData, lifecycle_event

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JobRecovery:
    """Publishes outcomes, removes leftovers, and recovers jobs that no worker runs."""

    queue: JobQueue
    storage: ObjectStore
    publish_event: PublishEvent

    async def publish_outcome(self, outcome: LifecycleData) -> None:
        """Publish an outcome. The file of an expired job is removed first.

        Raises:
            Retryable: Kafka or the object store is away; the stored outcome is published again after a lease.
        """
        kind = EVENT_OF[Status(outcome.status)]
        if kind is EventType.EXPIRED and outcome.key is not None:
            await self.storage.run_in_thread(self.storage.removal.remove_job, outcome.key)
        await self.publish_event(lifecycle_event(kind, outcome))

    async def remove_leftovers(self, job_id: UUID, *, before: int) -> None:
        """Remove the objects and uploads of attempts before number ``before``. An outage is only logged.

        The file of the attempt that completed the job is kept.
        """
        try:
            completed_attempt = await self.queue.completed_attempt(job_id)
            if completed_attempt is not None:
                before = min(before, completed_attempt)
            await self.storage.run_in_thread(self.storage.removal.remove_attempts, job_id, before=before)
        except Retryable as error:
            log.warning("leftovers.not_removed", job_id=str(job_id), error=str(error))

    async def discard(self, outcome: LifecycleData) -> None:
        """Remove the files of an attempt that lost its lease. No other attempt has the same keys.

        That holds even if a database that has failed over gave another attempt the same number.
        """
        if outcome.key is not None:
            await self.remove_result(outcome.job_id, outcome.key)

    async def remove_result(self, job_id: UUID, key: str) -> None:
        """Remove the file, or the several files, of an attempt. An outage is only logged."""
        try:
            await self.storage.run_in_thread(self.storage.removal.remove_result, key)
        except Retryable as error:
            log.warning("leftovers.not_removed", job_id=str(job_id), error=str(error))

    async def recover(self) -> None:
        """Publish outcomes that are not applied yet, end abandoned jobs, and expire files.

        Steps that need the object store come last. They stop at its first outage, when each call takes long.
        """
        unpublished = await self.queue.unclaimed.take_unpublished()
        for outcome in unpublished:
            if outcome.status != Status.EXPIRED:
                await self._try_to_publish(outcome)
        exhausted = await self.queue.unclaimed.end_exhausted()
        for outcome in (*exhausted, *await self.queue.cancellations.apply_early()):
            await self._try_to_publish(outcome)
        await self.queue.cancellations.delete_old()
        for outcome in exhausted:
            await self.remove_leftovers(outcome.job_id, before=outcome.attempt + 1)
        expired = [outcome for outcome in unpublished if outcome.status == Status.EXPIRED]
        JITTER.shuffle(expired)  # so that a file that the store refuses to remove is not always the first
        if await self._expire(expired):
            await self._expire(await self.queue.unclaimed.expire_files())

    async def _expire(self, outcomes: Iterable[LifecycleData]) -> bool:
        """Remove files and publish their outcomes. Return False at the first outage."""
        for outcome in outcomes:
            if not await self._try_to_publish(outcome):
                return False
        return True

    async def _try_to_publish(self, outcome: LifecycleData) -> bool:
        """Publish an outcome; an error is only logged. Return False if a part was away."""
        try:
            await self.publish_outcome(outcome)
        except ExporterError as error:
            log.warning("outcome.publish_failed", job_id=str(outcome.job_id), error=str(error))
            return not isinstance(error, Outage)
        return True

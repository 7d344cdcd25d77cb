"""Runs one attempt at a job, until its outcome is stored and published, or the job is released."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from stream_app.datasets.models import Dataset
from stream_app.datasets.retention import retention_of
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.errors import SessionEnded
from stream_app.exports.task import ExportedFile, ExportProgress, ExportTask
from stream_app.jobs.claim import Claim
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import Status
from stream_app.jobs.summary import SECONDS
from stream_app.kafka.publish_event import PublishEvent
from stream_app.observability import metrics, tracing
from stream_app.retries import retry_until_possible
from stream_app.settings import Settings
from stream_app.worker.attempt import Attempt, Slot, StopReason, attempt_delay, trace_end
from stream_app.worker.maintenance.job_recovery import JobRecovery
from stream_app.worker.part_coordinator import PartCoordinator
from streaming_exporter.errors import ExporterError, NeedsOperator, Outage, Rejected, Retryable
from streaming_exporter.events import EventType, FileData, JobError, LifecycleData, lifecycle_event

log = structlog.get_logger(__name__)

OPERATOR_WAIT = timedelta(days=1)
"""How long a job waits for an operator to repair what refuses the service."""

MAX_LISTED_FILES = 1_000
"""Limit of files in an event, which must fit into a message of 1 MB."""


@dataclass(frozen=True, slots=True)
class JobRunner:
    """Runs attempts, and decides whether the job ends or is tried again."""

    queue: JobQueue
    exporter: Exporter
    publish_event: PublishEvent
    recovery: JobRecovery
    settings: Settings
    coordinator: PartCoordinator | None = None
    datasets: Mapping[str, Dataset] = field(default_factory=dict)

    def start(self, claim: Claim) -> Attempt:
        """Begin the export of a claimed job."""
        progress, slot = ExportProgress(), Slot()
        waited = claim.started_at - (claim.requested_at or claim.started_at)
        log.info(
            "job.started",
            dataset=claim.request.export_type,
            format=claim.request.format,
            queue_seconds=round(waited.total_seconds(), 3),
            worker=claim.worker,
        )
        export = asyncio.create_task(self._export(claim, progress, slot), name=f"export {claim.job_id}")
        started = lifecycle_event(EventType.STARTED, claim.lifecycle(Status.PROCESSING))
        report = asyncio.create_task(retry_until_possible(self.publish_event, started))
        return Attempt(claim, progress, export, report, slot=slot)

    async def finish(self, attempt: Attempt) -> None:
        """Wait for the export, then store and publish its outcome, or release the job."""
        claim = attempt.claim
        try:
            await asyncio.wait({attempt.export})
            if attempt.stop is not StopReason.LEASE_LOST:
                # Wait before the outcome is stored or the job is released: afterwards other workers can
                # publish its events.
                await asyncio.wait({attempt.report})
            outcome = await self._decide(attempt)
            if outcome is None:
                return
            if await retry_until_possible(self.queue.store_outcome, claim, outcome):
                tracing.current_span().set_attributes(_traced(outcome))
                if outcome.status == Status.COMPLETED:
                    metrics.observe_export(outcome, attempt.began)
                await self.recovery.publish_outcome(outcome)
                await self._clean(claim, outcome)
            else:
                log.warning("job.lease_lost_at_end")
                metrics.LEASES_LOST.inc()
                await self.recovery.discard(outcome)
        except Retryable as error:
            # The recovery of jobs publishes a stored outcome later. The lease of a job without one expires.
            log.warning("attempt.interrupted", error=str(error))
        except Exception:
            log.exception("attempt.crashed")
        finally:
            attempt.report.cancel()

    async def report_progress(self, attempt: Attempt) -> None:
        """Publish the progress of an attempt. If Kafka is away, the report is left out."""
        rows = attempt.reported_rows = attempt.progress.tally.rows
        data = attempt.claim.lifecycle(
            Status.PROCESSING, row_count=rows, estimated_rows=attempt.progress.estimated_rows
        )
        try:
            await self.publish_event(lifecycle_event(EventType.PROGRESSED, data, occasion=str(rows)))
        except Retryable as error:
            log.warning("progress.publish_failed", **attempt.claim.log_fields, error=str(error))

    async def release(self, claim: Claim, *, delay: timedelta) -> None:
        """Release a job without counting a failure, unless its outcome is stored or it was lost since.

        There is only one try, because the worker is about to end.
        """
        try:
            await self.queue.release(claim, delay=delay, failed=False)
        except Retryable as error:
            log.warning("job.release_failed", **claim.log_fields, error=str(error))

    async def _release(
        self, claim: Claim, *, delay: timedelta, failed: bool, waits_for: JobError | None = None
    ) -> None:
        """Release the job. Retry until it succeeds, because an expired lease would count as a failure."""
        await retry_until_possible(self.queue.release, claim, delay=delay, failed=failed, waits_for=waits_for)

    async def _clean(self, claim: Claim, outcome: LifecycleData) -> None:
        """Remove what the parts of a job that has ended have left."""
        if self.coordinator is None or claim.request.split is None:
            return
        await self.coordinator.clean(claim)
        if outcome.status != Status.COMPLETED:
            await self.recovery.remove_leftovers(claim.job_id, before=claim.attempt + 1)

    async def _export(self, claim: Claim, progress: ExportProgress, slot: Slot) -> LifecycleData:
        keeps_parts = self.coordinator is not None and await self.coordinator.kept_plan(claim) is not None
        if claim.attempt > 1 and not keeps_parts:
            await self.recovery.remove_leftovers(claim.job_id, before=claim.attempt)
        folder = self.exporter.storage.folder(claim.job_id, claim.attempt)
        task = ExportTask(
            name=str(claim.job_id),
            request=claim.request,
            requested_at=claim.requested_at or claim.now,
            target=lambda name: f"{folder}/{name}",
            window=claim.window,
            run_day=claim.run_day,
        )
        result = None
        if self.coordinator is not None:
            result = await self.coordinator.run(claim, task, progress, slot)
        if result is None:
            result = await self.exporter.run(task, progress)
        if result.files:
            try:
                # Before the outcome is stored: from then on the files can be asked for.
                await retry_until_possible(self.queue.record_files, claim, result)
            except BaseException:
                await self.recovery.remove_result(claim.job_id, result.key)
                raise
        now, dataset = claim.now, self.datasets.get(claim.request.export_type)
        return claim.lifecycle(
            Status.COMPLETED,
            row_count=result.row_count,
            file_size=result.file_size,
            sha256=result.sha256,
            bucket=result.bucket,
            key=result.key,
            content_type=result.content_type,
            file_name=result.file_name,
            file_count=len(result.files) or None,
            files=_listed(result.files),
            as_of=result.as_of,
            completed_at=now,
            expires_at=now + retention_of(dataset, self.settings.retention_days),
            manifest=result.manifest | ({SECONDS: seconds} if (seconds := progress.times.seconds()) else {}),
        )

    async def _decide(self, attempt: Attempt) -> LifecycleData | None:
        """Return the outcome of a finished export, or ``None`` if it was released or its lease is lost."""
        claim, error = attempt.claim, attempt.error
        if error is None and not attempt.export.cancelled():
            outcome: LifecycleData = attempt.export.result()
            return outcome
        trace_end(attempt)
        if attempt.stop is not None:
            return await self._after_stop(claim, attempt.stop)
        if isinstance(error, Rejected):
            return _failure(claim, error.code, str(error))
        if isinstance(error, NeedsOperator):  # before Outage, whose subclass it is
            return await self._wait_for_operator(claim, error)
        if isinstance(error, Outage):
            return await self._wait_for_dependency(claim, error)
        return await self._count_failure(claim, error)

    async def _after_stop(self, claim: Claim, reason: StopReason) -> LifecycleData | None:
        """Return the outcome of a cancelled job, or ``None`` if it was released or its lease is lost."""
        match reason:
            case StopReason.CANCELLED:
                return claim.lifecycle(Status.CANCELLED, completed_at=claim.now)
            case StopReason.LEASE_LOST:
                log.warning("job.lease_lost")
                metrics.LEASES_LOST.inc()
            case StopReason.DRAINED:
                await self._release(claim, delay=timedelta(0), failed=False)
                log.info("job.released")
                metrics.RETRIES.labels("drain").inc()
        return None

    async def _wait_for_operator(self, claim: Claim, error: NeedsOperator) -> LifecycleData | None:
        """Release the job until an operator has acted; return its failure if it has waited too long."""
        if self._age(claim) > min(OPERATOR_WAIT, self._retention):
            message = (
                f"the export has waited too long for an operator: {error.reason}; "
                "give the id of this job to the operators"
            )
            return _failure(claim, error.code, message)
        log.error("job.operator_required", error=str(error))
        waits_for = JobError(code=error.code, message=f"waits for an operator: {error.reason}")
        await self._postpone(claim, waits_for=waits_for)
        return None

    async def _wait_for_dependency(self, claim: Claim, error: Outage) -> LifecycleData | None:
        """Release the job until a dependency answers; return its failure if it has waited too long.

        If the session with the source was ended, nothing is away, and the next attempt can end in the same
        way. So the job shows why it starts again.
        """
        waits_for = None
        too_long = "a part of the service was unavailable for too long; request the export again"
        if isinstance(error, SessionEnded):
            ended = (
                f"the session with the source database was ended from outside after {error.seconds:,.0f} s, "
                "before the last row was read"
            )
            waits_for = JobError(code=error.code, message=f"{ended}; the export begins again")
            too_long = f"{ended}, again and again; give the id of this job to the operators"
        if self._age(claim) > self._retention:
            return _failure(claim, error.code, too_long)
        log.warning("job.postponed", error=str(error), code=error.code)
        await self._postpone(claim, waits_for=waits_for)
        return None

    async def _postpone(self, claim: Claim, *, waits_for: JobError | None = None) -> None:
        """Release the job during an outage, which counts no failure."""
        await self._release(claim, delay=attempt_delay(claim.attempt - 1), failed=False, waits_for=waits_for)
        metrics.RETRIES.labels("outage").inc()

    async def _count_failure(self, claim: Claim, error: BaseException | None) -> LifecycleData | None:
        """Release the job for another attempt; return its failure if this was the last one."""
        expected = isinstance(error, ExporterError)
        log.warning("job.attempt_failed", error=str(error), exc_info=None if expected else error)
        code = error.code if isinstance(error, ExporterError) else "internal_error"
        tries = claim.failures + 1
        if tries >= self.settings.max_attempts:
            message = (
                f"the export failed {tries} times ({code}); request it again later. "
                "If it fails again, give the id of this job to the operators"
            )
            return _failure(claim, code, message)
        await self._release(claim, delay=attempt_delay(claim.failures), failed=True)
        metrics.RETRIES.labels("fault").inc()
        return None

    def _age(self, claim: Claim) -> timedelta:
        """Return for how long the job has waited since its request."""
        return claim.now - (claim.requested_at or claim.started_at)

    @property
    def _retention(self) -> timedelta:
        return timedelta(days=self.settings.retention_days)


def _listed(files: Sequence[ExportedFile]) -> list[FileData] | None:
    """Return the files as the event lists them; ``None`` if there is one, or there are too many."""
    if not 0 < len(files) <= MAX_LISTED_FILES:
        return None
    return [
        FileData(
            file_name=file.file_name,
            key=file.key,
            content_type=file.content_type,
            row_count=file.row_count,
            file_size=file.file_size,
            sha256=file.sha256,
        )
        for file in files
    ]


def _failure(claim: Claim, code: str, message: str) -> LifecycleData:
    return claim.lifecycle(Status.FAILED, completed_at=claim.now, error=JobError(code=code, message=message))


def _traced(outcome: LifecycleData) -> tracing.Attributes:
    return {
        "exporter.outcome": outcome.status,
        "exporter.rows": outcome.row_count,
        "exporter.bytes": outcome.file_size,
    }

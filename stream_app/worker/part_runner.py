"""Runs one attempt at a part of a job, until the part is completed, released or has failed."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from stream_app.exports.part_results import PartResult
from stream_app.exports.pipeline import Exporter
from stream_app.exports.sources.errors import TableLocked
from stream_app.exports.tables.catalog import TableBeingChanged
from stream_app.exports.task import ExportProgress, ExportResult, ExportTask, TaskPart
from stream_app.jobs.part_claim import PartClaim
from stream_app.jobs.parts import PartStore
from stream_app.observability import metrics, tracing
from stream_app.retries import retry_until_possible
from stream_app.settings import Settings
from stream_app.storage.listing import ListedObject, part_of_key, part_prefix
from stream_app.worker.attempt import PartAttempt, StopReason, attempt_delay, trace_end
from streaming_exporter.errors import ExporterError, NeedsOperator, Outage, Rejected, Retryable
from streaming_exporter.events import JobError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PartRunner:
    """Runs attempts at parts. The holder of the job decides what follows for the job."""

    parts: PartStore
    exporter: Exporter
    settings: Settings

    def start(self, claim: PartClaim) -> PartAttempt:
        """Begin the export of a claimed part."""
        progress = ExportProgress()
        name = f"export {claim.job_id} part {claim.number}"
        export = asyncio.create_task(self._export(claim, progress), name=name)
        return PartAttempt(claim, progress, export, claim)

    async def finish(self, attempt: PartAttempt) -> None:
        """Wait for the export, then complete or release the part."""
        try:
            await asyncio.wait({attempt.export})
            if attempt.error is None and not attempt.export.cancelled():
                await self._complete(attempt.part, attempt.export.result())
            else:
                await self._settle(attempt)
        except Retryable as error:  # the lease expires
            log.warning("part.interrupted", error=str(error))
        except Exception:
            log.exception("part.crashed")

    async def release(self, claim: PartClaim, *, delay: timedelta) -> None:
        """Release a part without counting a failure. It is tried once: the worker is about to end."""
        try:
            await self.parts.release(claim, delay=delay, failed=False)
        except Retryable as error:
            log.warning("part.release_failed", **claim.log_fields, error=str(error))

    async def _export(self, claim: PartClaim, progress: ExportProgress) -> ExportResult:
        if claim.part_attempt > 1:
            await self._remove_leftovers(claim)
        prefix = part_prefix(claim.number, claim.part_attempt)
        task = ExportTask(
            name=f"{claim.job_id} part {claim.number}",
            request=claim.request,
            requested_at=claim.requested_at or claim.now,
            target=lambda name: f"{claim.folder}/{prefix}{name}",
            window=claim.window,
            run_day=claim.run_day,
            part=TaskPart(claim.range, claim.snapshot, claim.as_of, claim.number),
        )
        return await self.exporter.run(task, progress)

    async def _remove_leftovers(self, claim: PartClaim) -> None:
        """Remove the objects and uploads of earlier attempts at this part. An outage is only logged."""

        def is_left(found: ListedObject) -> bool:
            part = part_of_key(found.key, claim.folder)
            return part is not None and part[0] == claim.number and part[1] < claim.part_attempt

        storage = self.exporter.storage
        try:
            await storage.run_in_thread(storage.removal.remove_unneeded, claim.job_id, is_left)
        except Retryable as error:
            log.warning("leftovers.not_removed", job_id=str(claim.job_id), error=str(error))

    async def _complete(self, claim: PartClaim, result: ExportResult) -> None:
        content = PartResult.of(result, claim.number).to_json()
        keys = [file.key for file in result.files]
        held = await retry_until_possible(self.parts.complete, claim, content, rows=result.row_count)
        # An answer that was lost: the part was completed, and its job has ended before the repeated call.
        listed = set() if held else await retry_until_possible(self.parts.listed_keys, claim.job_id, keys)
        if held or listed:
            tracing.current_span().set_attributes(
                {"exporter.rows": result.row_count, "exporter.bytes": result.file_size}
            )
            log.info("part.completed", rows=result.row_count, bytes=result.file_size)
            return
        log.warning("part.lease_lost_at_end")
        metrics.LEASES_LOST.inc()
        storage = self.exporter.storage
        await storage.run_in_thread(storage.removal.remove_all, keys)

    async def _settle(self, attempt: PartAttempt) -> None:
        """Release a part whose export did not succeed, or let it fail."""
        claim, error = attempt.part, attempt.error
        trace_end(attempt)
        if attempt.stop is not None:
            await self._after_stop(claim, attempt.stop)
        elif isinstance(error, Rejected | TableLocked) or (
            isinstance(error, TableBeingChanged) and claim.snapshot is not None
        ):
            # A part cannot have the lock before the holder of the job has ended its transaction, and in the
            # holder's snapshot the table never becomes what it is now.
            await self._fail(claim, JobError(code=error.code, message=str(error)))
        elif isinstance(error, Outage):
            if isinstance(error, NeedsOperator):
                log.error("job.operator_required", error=str(error))
            log.warning("part.postponed", error=str(error))
            waits_for = JobError(code=error.code, message="a part of the service is away")
            delay = attempt_delay(claim.part_attempt - 1)
            await self._release(claim, delay=delay, failed=False, waits_for=waits_for)
            metrics.RETRIES.labels("outage").inc()
        else:
            await self._count_failure(claim, error)

    async def _after_stop(self, claim: PartClaim, reason: StopReason) -> None:
        match reason:
            case StopReason.CANCELLED:
                pass  # the holder of the job deletes its parts
            case StopReason.LEASE_LOST:
                log.warning("part.lease_lost")
                metrics.LEASES_LOST.inc()
            case StopReason.DRAINED:
                await self._release(claim, delay=timedelta(0), failed=False)
                log.info("part.released")
                metrics.RETRIES.labels("drain").inc()

    async def _count_failure(self, claim: PartClaim, error: BaseException | None) -> None:
        """Release the part for another attempt, or let it fail if this was the last one."""
        expected = isinstance(error, ExporterError)
        log.warning("part.attempt_failed", error=str(error), exc_info=None if expected else error)
        code = error.code if isinstance(error, ExporterError) else "internal_error"
        tries = claim.failures + 1
        if tries < self.settings.max_attempts:
            await self._release(claim, delay=attempt_delay(claim.failures), failed=True)
            metrics.RETRIES.labels("fault").inc()
            return
        message = (
            f"a part of the export failed {tries} times ({code}); request it again later. "
            "If it fails again, give the id of this job to the operators"
        )
        await self._fail(claim, JobError(code=code, message=message))

    async def _fail(self, claim: PartClaim, error: JobError) -> None:
        log.warning("part.failed", code=error.code, error=error.message)
        await retry_until_possible(self.parts.fail, claim, error)

    async def _release(
        self, claim: PartClaim, *, delay: timedelta, failed: bool, waits_for: JobError | None = None
    ) -> None:
        """Release the part, and retry until it succeeds: a lease that expires would count as a failure."""
        await retry_until_possible(self.parts.release, claim, delay=delay, failed=failed, waits_for=waits_for)

"""Claims jobs for the slots of a worker and runs them: heartbeats, cancellation, drain."""

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import structlog

from stream_app.exports.pipeline import Exporter
from stream_app.jobs.claim import AttemptProgress, Claim
from stream_app.jobs.queue import JobQueue
from stream_app.observability import metrics, tracing
from stream_app.periodic import repeat
from stream_app.settings import Settings
from stream_app.worker.job_runner import Attempt, JobRunner, StopReason
from stream_app.worker.maintenance.job_rescuer import Emit, JobRescuer
from streaming_exporter.errors import Retryable

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
"""Seconds between two claims of an idle worker. Due retries and expired leases send no notification."""

HEARTBEAT_SECONDS = 1.0
"""Seconds between two heartbeats, which renew leases and report progress."""

DRAIN_SECONDS = 10
"""Seconds that stopped exports have to clean up and to be released."""

RELEASE_SECONDS = 2
"""The part of :data:`DRAIN_SECONDS` that is reserved for releasing exports that do not stop."""


class Dispatcher:
    """Claims jobs and runs them, ``WORKER_SLOTS`` at a time, until it is drained."""

    def __init__(
        self, *, worker: str, store: JobQueue, exporter: Exporter, emit: Emit, settings: Settings
    ) -> None:
        self.worker = worker
        self._store = store
        self._settings = settings
        self._attempts: dict[UUID, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rescuer = JobRescuer(store, exporter.storage, emit)
        self._runner = JobRunner(store, exporter, emit, self._rescuer, settings)
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._draining = False
        self._renewed_at = time.monotonic()

    @property
    def running(self) -> int:
        """The number of attempts that run here, including those whose job another worker has claimed."""
        return len(self._tasks)

    def wake(self, payload: str = "") -> None:
        """Handle a notification: an empty payload means new work, a job's id means to cancel the job."""
        if not payload:
            self._wake.set()
        elif attempt := self._attempts.get(UUID(payload)):
            attempt.end(StopReason.CANCELLED)

    async def work(self) -> None:
        """Claim and run jobs until drained."""
        while not self._draining:
            self._wake.clear()
            free = self._settings.worker_slots - self.running
            claimed = await self._claim(free) if free > 0 else 0
            if claimed < free or free <= 0:
                await _wait(self._wake, POLL_SECONDS)

    async def _claim(self, free: int) -> int:
        async with self._claiming:
            if self._draining:
                return 0
            try:
                if self._attempts and time.monotonic() - self._renewed_at > self._settings.lease_seconds / 2:
                    await self._renew()  # otherwise a job that runs here could be claimed as abandoned
                claims = await self._store.claim(self.worker, free)
            except Retryable as error:
                log.warning("claim.failed", error=str(error))
                return 0
            for claim in claims:
                metrics.CLAIMS.labels("first" if claim.attempt == 1 else "later").inc()
                try:
                    self._start(claim)
                except Exception:  # the other claimed jobs must start, and not wait until their leases expire
                    log.exception("job.start_failed", **claim.log_fields)
                    await self._runner.release(claim, delay=timedelta(seconds=POLL_SECONDS))
            return len(claims)

    async def heartbeat(self) -> None:
        """Renew the leases of the running attempts, and stop attempts that lost theirs or are cancelled."""
        pause = min(HEARTBEAT_SECONDS, self._settings.lease_seconds / 3)
        await repeat("heartbeat", self._renew, pause)

    async def _renew(self) -> None:
        attempts = list(self._attempts.values())
        began, seconds = time.monotonic(), self._settings.lease_seconds / 3
        try:
            async with asyncio.timeout(seconds):
                held, cancelled = await self._store.renew(self.worker, [_progress(item) for item in attempts])
        except TimeoutError as error:
            raise Retryable(f"state database: leases were not renewed within {seconds:g} s") from error
        self._renewed_at = began
        for attempt in attempts:
            if attempt.claim.job_id not in held:
                attempt.end(StopReason.LEASE_LOST)
            elif not attempt.is_running:
                continue
            elif attempt.claim.job_id in cancelled:
                attempt.end(StopReason.CANCELLED)
            elif attempt.has_new_progress:
                # Not awaited, because leases must be renewed while Kafka is away.
                attempt.report = asyncio.create_task(self._runner.report_progress(attempt))

    async def rescue(self) -> None:
        """Rescue jobs of dead workers every :data:`POLL_SECONDS`."""
        await repeat("rescue", self._rescuer.rescue, POLL_SECONDS)

    async def drain(self, grace: float) -> None:
        """Claim no more jobs, wait ``grace`` seconds for running exports, then stop and release the rest."""
        self._draining = True
        self._wake.set()
        until = time.monotonic() + grace
        with suppress(TimeoutError):
            async with asyncio.timeout(grace), self._claiming:
                pass  # the last claim has started its jobs
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0, until - time.monotonic()))
        for attempt in list(self._attempts.values()):
            attempt.end(StopReason.DRAINED)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS - RELEASE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                for attempt in list(self._attempts.values()):
                    await self._runner.release(attempt.claim, delay=timedelta(0))
                    attempt.report.cancel()

    def _start(self, claim: Claim) -> None:
        if taken_over := self._attempts.get(claim.job_id):
            taken_over.end(StopReason.LEASE_LOST)
        span = tracing.span("export", parent=claim.traceparent, attributes=claim.trace_attributes)
        with span.activate(), structlog.contextvars.bound_contextvars(**claim.log_fields):
            claim = replace(claim, traceparent=span.traceparent)
            attempt = self._attempts[claim.job_id] = self._runner.start(claim)
            task = asyncio.create_task(self._runner.finish(attempt), name=f"attempt {claim.job_id}")
        self._tasks.add(task)
        metrics.SLOTS_RUNNING.set(self.running)

        def done(_: object) -> None:
            self._tasks.discard(task)
            span.end()
            if self._attempts.get(claim.job_id) is attempt:
                del self._attempts[claim.job_id]
            metrics.SLOTS_RUNNING.set(self.running)
            self._wake.set()

        task.add_done_callback(done)


def _progress(attempt: Attempt) -> AttemptProgress:
    return AttemptProgress(
        attempt.claim.job_id,
        attempt.claim.attempt,
        attempt.progress.tally.rows,
        attempt.progress.estimated_rows,
    )


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return

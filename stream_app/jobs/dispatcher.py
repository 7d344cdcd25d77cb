"""Who works on what: slots, leases, heartbeats, cancellation, retries, drain."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from uuid import UUID

import structlog

from stream_app.errors import ExporterError, Outage, Rejected, Retryable
from stream_app.events import EventType, JobError, LifecycleData, lifecycle_event
from stream_app.exports.run import Exporter, Gauge
from stream_app.jobs.states import Status
from stream_app.jobs.store import Claim, JobStore, Progress
from stream_app.jobs.tending import Caretaker, Emit
from stream_app.patience import until_possible
from stream_app.settings import Settings

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
"""How often an idle worker looks for work that no notification told it about (due retries, lost leases)."""

HEARTBEAT_SECONDS = 1.0
"""How often running exports renew their leases and say how far they are."""

FIRST_RETRY = timedelta(seconds=5)
LONGEST_RETRY = timedelta(minutes=2)
OUTAGE_RETRY = timedelta(seconds=5)

DRAIN_SECONDS = 10
"""How long exports that are stopped may take to clean up."""


class Stop(Enum):
    """Why a running export is stopped."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"


@dataclass(slots=True, eq=False)
class Attempt:
    """One export that runs here."""

    claim: Claim
    gauge: Gauge
    export: "asyncio.Task[LifecycleData]"
    stop: Stop | None = None
    report: "asyncio.Task[None] | None" = None
    reported_rows: int = 0

    def end(self, reason: Stop) -> None:
        """Stop the export, for the first reason given."""
        if self.stop is None and self.is_running:
            self.stop = reason
            self.export.cancel()

    @property
    def is_running(self) -> bool:
        """Whether the export itself is not over yet."""
        return not self.export.done()

    @property
    def has_news(self) -> bool:
        """Whether it got further since the last report, and that report is out."""
        reported = self.report is None or self.report.done()
        return reported and self.gauge.tally.rows > self.reported_rows


class Dispatcher:
    """Claims jobs and runs them, ``WORKER_SLOTS`` at a time, until it is drained."""

    def __init__(
        self, *, worker: str, store: JobStore, exporter: Exporter, emit: Emit, settings: Settings
    ) -> None:
        self.worker = worker
        self._store = store
        self._exporter = exporter
        self._emit = emit
        self._settings = settings
        self._attempts: dict[UUID, Attempt] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._caretaker = Caretaker(store, exporter.storage, emit)
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._draining = False

    @property
    def running(self) -> int:
        """How many exports run here now."""
        return len(self._attempts)

    def wake(self, payload: str = "") -> None:
        """Take a notification: new work, or the id of a job to cancel."""
        if not payload:
            self._wake.set()
        elif attempt := self._attempts.get(UUID(payload)):
            attempt.end(Stop.CANCELLED)

    async def work(self) -> None:
        """Claim and run jobs until drained."""
        while not self._draining:
            self._wake.clear()
            free = self._settings.worker_slots - len(self._attempts)
            claimed = await self._claim(free) if free > 0 else 0
            if claimed < free or free <= 0:
                await _wait(self._wake, POLL_SECONDS)

    async def _claim(self, free: int) -> int:
        async with self._claiming:
            if self._draining:
                return 0
            try:
                claims = await self._store.claim(self.worker, free)
            except Retryable as error:
                log.warning("claim.failed", error=str(error))
                return 0
            for claim in claims:
                self._start(claim)
            return len(claims)

    async def heartbeat(self) -> None:
        """Renew the leases of what runs here; what is no longer held, or is to be cancelled, is stopped."""
        pause = min(HEARTBEAT_SECONDS, self._settings.lease_seconds / 3)
        await _repeat("heartbeat", self._renew, pause)

    async def _renew(self) -> None:
        attempts = list(self._attempts.values())
        held, cancelled = await self._store.renew(self.worker, [_progress(item) for item in attempts])
        for attempt in attempts:
            if not attempt.is_running:
                continue
            if attempt.claim.job_id not in held:
                attempt.end(Stop.LEASE_LOST)
            elif attempt.claim.job_id in cancelled:
                attempt.end(Stop.CANCELLED)
            elif attempt.has_news:
                # Not awaited: while Kafka is away, leases must be renewed all the same.
                attempt.report = asyncio.create_task(self._report_progress(attempt))

    async def tend(self) -> None:
        """Look after jobs that nobody works on, for ever."""
        await _repeat("tending", self._caretaker.tend, POLL_SECONDS)

    async def drain(self, grace: float) -> None:
        """Claim nothing more, give running exports ``grace`` seconds, hand the rest back at once."""
        self._draining = True
        self._wake.set()
        async with self._claiming:
            pass  # a claim that was under way has started its jobs
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for attempt in list(self._attempts.values()):
            attempt.end(Stop.DRAINED)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS)
        for attempt in list(self._attempts.values()):
            await self._hand_back(attempt.claim, delay=timedelta(0))

    def _start(self, claim: Claim) -> None:
        gauge = Gauge()
        export = asyncio.create_task(self._export(claim, gauge), name=f"export {claim.job_id}")
        attempt = self._attempts[claim.job_id] = Attempt(claim, gauge, export)
        task = asyncio.create_task(self._attempt(attempt), name=f"attempt {claim.job_id}")
        self._tasks.add(task)

        def done(_: object) -> None:
            self._tasks.discard(task)
            if self._attempts.get(claim.job_id) is attempt:
                del self._attempts[claim.job_id]
            self._wake.set()

        task.add_done_callback(done)

    async def _attempt(self, attempt: Attempt) -> None:
        """One attempt from start to sealed and published outcome, or to its release."""
        claim = attempt.claim
        bound = log.bind(job_id=str(claim.job_id), user_id=claim.request.user_id, attempt=claim.attempt)
        try:
            await asyncio.wait({attempt.export})
            outcome = await self._judge(attempt, bound)
            if outcome is None:
                return
            if await until_possible(self._store.seal, claim, outcome):
                if attempt.report is not None:
                    await asyncio.wait({attempt.report})
                await self._caretaker.publish(outcome)
                bound.info(f"job.{outcome.status}", rows=outcome.row_count, bytes=outcome.file_size)
            else:
                bound.warning("job.lease_lost_at_end")
                await self._caretaker.sweep(claim.job_id, before=claim.attempt + 1)
        except Retryable as error:
            # A sealed outcome is published later by whoever tends to it; anything else runs into its lease.
            bound.warning("job.interrupted", error=str(error))
        except Exception:
            bound.exception("job.crashed")

    async def _export(self, claim: Claim, gauge: Gauge) -> LifecycleData:
        await self._emit(lifecycle_event(EventType.STARTED, claim.lifecycle(Status.PROCESSING)))
        if claim.attempt > 1:
            await self._caretaker.sweep(claim.job_id, before=claim.attempt)
        return await self._exporter.run(claim, gauge)

    async def _hand_back(self, claim: Claim, *, delay: timedelta) -> None:
        """Give a job up without counting a failure; one that was sealed or lost meanwhile is left alone."""
        try:
            await self._store.release(claim, delay=delay, failed=False)
        except Retryable as error:
            log.warning("job.lease_runs_out", job_id=str(claim.job_id), error=str(error))

    async def _judge(self, attempt: Attempt, bound: structlog.stdlib.BoundLogger) -> LifecycleData | None:
        """The outcome that a finished export has; ``None`` if the job goes back or is not ours any more."""
        claim, export = attempt.claim, attempt.export
        error = None if export.cancelled() else export.exception()
        if not export.cancelled() and error is None:
            return export.result()
        match attempt.stop:
            case Stop.CANCELLED:
                return claim.lifecycle(Status.CANCELLED, completed_at=datetime.now(UTC))
            case Stop.LEASE_LOST:
                bound.warning("job.lease_lost")
                return None
            case Stop.DRAINED:
                await self._hand_back(claim, delay=timedelta(0))
                bound.info("job.handed_back")
                return None
        if isinstance(error, Rejected):
            bound.info("job.rejected", code=error.code, error=str(error))
            return _failure(claim, error.code, str(error))
        if isinstance(error, Outage):
            if self._has_waited_enough(claim):
                return _failure(claim, error.code, "gave up: a part of the service was away for too long")
            bound.warning("job.waits_for_outage", error=str(error))
            await self._hand_back(claim, delay=OUTAGE_RETRY)
            return None
        expected = isinstance(error, ExporterError)
        bound.warning("job.attempt_failed", error=str(error), exc_info=None if expected else error)
        code = error.code if isinstance(error, ExporterError) else "internal_error"
        if claim.failures + 1 >= self._settings.max_attempts:
            return _failure(
                claim,
                code,
                f"gave up after {claim.failures + 1} attempts ({code}); "
                "try again later, and tell the operators this job's id if it goes on",
            )
        await self._store.release(claim, delay=backoff(claim.failures))
        return None

    def _has_waited_enough(self, claim: Claim) -> bool:
        """Nobody waits for a job longer than for its file."""
        age = datetime.now(UTC) - (claim.asked_at or claim.started_at)
        return age > timedelta(days=self._settings.retention_days)

    async def _report_progress(self, attempt: Attempt) -> None:
        rows = attempt.reported_rows = attempt.gauge.tally.rows
        data = attempt.claim.lifecycle(
            Status.PROCESSING, row_count=rows, estimated_rows=attempt.gauge.estimated_rows
        )
        try:
            await self._emit(lifecycle_event(EventType.PROGRESSED, data, occasion=str(rows)))
        except Retryable as error:
            log.warning("progress.unpublished", error=str(error))


def backoff(failures: int) -> timedelta:
    """Exponential back-off with full jitter above half, so that failed jobs do not return as one wave."""
    longest = min(FIRST_RETRY * 2**failures, LONGEST_RETRY)
    return timedelta(seconds=longest.total_seconds() * random.uniform(0.5, 1))  # noqa: S311


def _failure(claim: Claim, code: str, message: str) -> LifecycleData:
    return claim.lifecycle(
        Status.FAILED, completed_at=datetime.now(UTC), error=JobError(code=code, message=message)
    )


def _progress(attempt: Attempt) -> Progress:
    return Progress(
        attempt.claim.job_id, attempt.claim.attempt, attempt.gauge.tally.rows, attempt.gauge.estimated_rows
    )


async def _repeat(name: str, step: Callable[[], Awaitable[None]], pause: float) -> None:
    """Do ``step`` after every ``pause`` seconds, for ever; one that fails is tried again like any other."""
    while True:
        await asyncio.sleep(pause)
        try:
            await step()
        except Retryable as error:
            log.warning(f"{name}.failed", error=str(error))
        except Exception:
            log.exception(f"{name}.crashed")


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return

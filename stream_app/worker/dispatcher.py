"""Claims jobs for the slots of a worker and runs them: heartbeats, cancellation, drain."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from contextvars import Context
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import structlog

from stream_app.exports.part_planner import PartPlanner
from stream_app.exports.pipeline import Exporter
from stream_app.jobs.claim import AttemptProgress, Claim
from stream_app.jobs.claim_pauses import PausedClaims
from stream_app.jobs.lost_claims import LostClaims
from stream_app.jobs.new_job import NewJob
from stream_app.jobs.part_claim import PartClaim, PartKey, PartProgress
from stream_app.jobs.parts import PartStore
from stream_app.jobs.queue import JobQueue
from stream_app.kafka.publish_event import PublishEvent
from stream_app.observability import metrics, tracing
from stream_app.periodic import repeat
from stream_app.settings import Settings
from stream_app.worker.attempt import Attempt, PartAttempt, RunningAttempt, StopReason
from stream_app.worker.gathered_events import GATHER_SECONDS, GatheredEvents
from stream_app.worker.job_runner import JobRunner
from stream_app.worker.maintenance.job_recovery import JobRecovery
from stream_app.worker.part_coordinator import PartCoordinator
from stream_app.worker.part_runner import PartRunner
from stream_app.worker.source_slots import SourceSlots
from streaming_exporter.errors import InDoubt, Locked, Retryable
from streaming_exporter.events import LifecycleData

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
"""Seconds between two claims of an idle worker. Due retries and expired leases send no notification."""

HEARTBEAT_SECONDS = 1.0
"""Seconds between two heartbeats, which renew leases and report progress."""

DRAIN_SECONDS = 10
"""Seconds that stopped exports have to clean up and to be released."""

Key = TypeVar("Key", UUID, PartKey)
Running = TypeVar("Running", bound=RunningAttempt)

RELEASE_SECONDS = 2
"""The part of :data:`DRAIN_SECONDS` that is reserved for releasing exports that do not stop."""


class Dispatcher:
    """Claims jobs and parts and runs them, ``WORKER_SLOTS`` at a time, until it is drained.

    A job whose parts run needs no slot, and an export whose source is slow gives its slot to another export.
    """

    def __init__(
        self,
        *,
        worker: str,
        queue: JobQueue,
        exporter: Exporter,
        publish_event: PublishEvent,
        settings: Settings,
        planner: PartPlanner | None = None,
        paused: Callable[[], PausedClaims | None] = PausedClaims,
    ) -> None:
        """Create a dispatcher. Without ``planner`` no export is divided into parts.

        ``paused`` returns what is not claimed. ``None`` means that it is not known, so nothing is claimed.
        """
        self._paused = paused
        self.worker = worker
        self._queue = queue
        self._settings = settings
        self._attempts: dict[UUID, Attempt] = {}
        self._parts: dict[PartKey, PartAttempt] = {}
        self._tasks: dict[asyncio.Task[None], RunningAttempt] = {}
        self._recovery = JobRecovery(queue, exporter.storage, publish_event)
        self._part_store = PartStore(queue)
        self._part_runner = PartRunner(self._part_store, exporter, settings)
        coordinator = None
        if planner is not None:
            coordinator = PartCoordinator(self._part_store, planner, exporter.storage, settings)
        self._sources = SourceSlots(exporter.sources, exporter.datasets, settings.worker_slots)
        gathered = GatheredEvents(publish_event, lambda: GATHER_SECONDS if self._has_backlog else 0.0)
        self._runner = JobRunner(
            queue,
            exporter,
            gathered,
            JobRecovery(queue, exporter.storage, gathered),
            settings,
            coordinator,
            exporter.datasets,
        )
        self._datasets = exporter.datasets
        self._wake = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._lost = LostClaims(queue, worker)
        self._draining = False
        self.is_claiming = False
        """Whether the worker claims what waits. It begins once the bucket and the outcomes were read."""
        self._claim_skipped = False
        """Whether the last claim was skipped, so the worker does not know whether jobs wait."""
        self._has_backlog = False
        """Whether the last claim has found work for each free slot, and has left some."""
        self._renewed_at = time.monotonic()

    @property
    def running(self) -> int:
        """The number of attempts that run here, including those whose job another worker has claimed."""
        return len(self._tasks)

    @property
    def slots_in_use(self) -> int:
        """How many slots are in use: those of running exports, and of ended ones beyond ``WORKER_SLOTS``.

        An attempt whose export has ended only stores and publishes its outcome, so another export can begin.
        While that is not possible, no more exports begin than there are slots.
        """
        attempts = self._tasks.values()
        ending = sum(not attempt.is_running for attempt in attempts)
        running = sum(attempt.is_running and attempt.needs_slot for attempt in attempts)
        return running + max(0, ending - self._settings.worker_slots)

    def wake(self, payload: str = "") -> None:
        """Handle a notification: an empty payload means new work, a job's id means to cancel the job."""
        if not payload:
            self._wake.set()
            return
        for attempt in self._current:
            if attempt.claim.job_id == UUID(payload):
                attempt.end(StopReason.CANCELLED)

    @property
    def _current(self) -> list[RunningAttempt]:
        """The attempts that have the newest claim, as far as this worker knows."""
        return [*self._attempts.values(), *self._parts.values()]

    async def work(self) -> None:
        """Claim and run jobs until drained."""
        self.is_claiming = True
        while not self._draining:
            self._wake.clear()
            await self._release_lost()
            free = self._settings.worker_slots - self.slots_in_use
            self._claim_skipped = free <= 0
            if free <= 0 or not await self._claim(free):
                await _wait(self._wake, POLL_SECONDS)

    async def _claim(self, free: int) -> bool:
        """Claim for ``free`` slots, and return whether more can be claimed."""
        async with self._claiming:
            paused = self._paused()
            # While a claim is in doubt, nothing is claimed: only what never ran must be handed back.
            if self._draining or paused is None or self._lost.is_in_doubt:
                self._claim_skipped = True
                return False
            claimable = self._sources.claimable(free, self._exporting())
            try:
                if self._current and time.monotonic() - self._renewed_at > self._settings.lease_seconds / 2:
                    await self._renew()  # otherwise a job that runs here could be claimed as abandoned
                # Jobs that wait for their parts need no slot, but memory and a connection.
                holders = sum(item.slot.is_free for item in self._tasks.values())
                with self._lost.watch():
                    claims = await self._queue.claim(
                        self.worker,
                        claimable.limit,
                        with_split=holders < self._settings.worker_slots,
                        held_back=claimable.held_back,
                        away=claimable.away,
                        paused=paused.datasets(self._datasets),
                        paused_users=paused.users,
                        only_parts=paused.everything,
                    )
            except Retryable as error:
                log.warning("claim.failed", error=str(error))
                return False
            is_full = len(claims) == claimable.limit
            self._has_backlog = is_full and self._queue.is_work_left
            await self._start_all(claims)
            # A source with fewer connections than free slots is full now, and others still have jobs.
            return is_full

    async def admit(self, job: NewJob) -> list[LifecycleData] | None:
        """Admit a new job, and start it here if no work waits. So it needs no notification and no claim.

        Returns:
            The ``export.accepted`` data of the job if it was admitted now; or ``None``: it has to be admitted
            like any other job.
        """
        if self._queue.is_work_left or self._claiming.locked() or not _can_start_at_once(job):
            return None
        # A task of its own is not cancelled with its caller, so a claimed job starts, and drain() waits for
        # it. Its empty context keeps what belongs to the message out of the export.
        admission = asyncio.create_task(self._admit(job), name=f"admit {job.id}", context=Context())
        return await asyncio.shield(admission)

    async def _admit(self, job: NewJob) -> list[LifecycleData] | None:
        async with self._claiming:
            paused = self._paused()
            if self._draining or paused is None or paused.scopes or self._lost.is_in_doubt:
                return None
            if self.slots_in_use >= self._settings.worker_slots:
                return None
            if not self._sources.have_room(job.export_type, self._exporting()):
                return None
            try:
                with self._lost.watch():
                    admitted = await self._queue.admission.admit_and_claim(self.worker, job)
            except Locked:
                return None
            except InDoubt:
                self._wake.set()  # the job is possibly claimed: work() hands it back
                raise
            await self._start_all(admitted.claims)
            return admitted.accepted

    def _exporting(self) -> Iterator[str]:
        """Return the datasets of the exports that run here, each as often as it is exported."""
        return (
            item.claim.request.export_type
            for item in self._tasks.values()
            if item.is_running and not item.slot.is_free
        )

    async def _start_all(self, claims: Iterable[Claim]) -> None:
        """Start the attempts of claims. One that cannot start is released."""
        for claim in claims:
            tries = claim.part_attempt if isinstance(claim, PartClaim) else claim.attempt
            metrics.CLAIMS.labels("first" if tries == 1 else "later").inc()
            try:
                self._start(claim)
            except Exception:  # the other claimed jobs must start, and not wait until their leases expire
                log.exception("job.start_failed", **claim.log_fields)
                await self._release(claim, delay=timedelta(seconds=POLL_SECONDS))

    async def _release_lost(self) -> None:
        """Release what was taken by a claim whose answer was lost, also while no slot is free."""
        if not self._lost.is_in_doubt:
            return
        async with self._claiming:
            try:
                await self._lost.release_lost(attempt.claim for attempt in self._tasks.values())
            except Retryable as error:
                log.warning("claim.hand_back_failed", error=str(error))

    async def _release(self, claim: Claim, *, delay: timedelta) -> None:
        if isinstance(claim, PartClaim):
            await self._part_runner.release(claim, delay=delay)
        else:
            await self._runner.release(claim, delay=delay)

    async def heartbeat(self) -> None:
        """Renew the leases of the running attempts, and stop attempts that lost theirs or are cancelled."""
        pause = min(HEARTBEAT_SECONDS, self._settings.lease_seconds / 3)
        await repeat("heartbeat", self._renew, pause)

    async def _renew(self) -> None:
        attempts, parts = list(self._attempts.values()), list(self._parts.values())
        began, seconds = time.monotonic(), self._settings.lease_seconds / 3
        try:
            async with asyncio.timeout(seconds):
                held, cancelled = await self._queue.renew(self.worker, [_progress(item) for item in attempts])
                held_parts, cancelled_parts = await self._part_store.renew(
                    self.worker, [PartProgress.of(item.part, item.progress.tally.rows) for item in parts]
                )
        except TimeoutError as error:
            raise Retryable(f"state database: leases were not renewed within {seconds:g} s") from error
        self._renewed_at = began
        for part in parts:
            if part.part.key not in held_parts:
                part.end(StopReason.LEASE_LOST)
            elif part.part.key in cancelled_parts:
                part.end(StopReason.CANCELLED)
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

    async def recover(self) -> None:
        """Recover jobs of dead workers every :data:`POLL_SECONDS`."""
        await repeat("rescue", self._recovery.recover, POLL_SECONDS)

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
        for attempt in self._current:
            attempt.end(StopReason.DRAINED)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN_SECONDS - RELEASE_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                for attempt in self._current:
                    await self._release(attempt.claim, delay=timedelta(0))
                    if isinstance(attempt, Attempt):
                        attempt.report.cancel()
                await self._release_lost()

    def _start(self, claim: Claim) -> None:
        """Begin the attempt of a claim. An earlier one at the same job or part has lost its lease."""
        is_part = isinstance(claim, PartClaim)
        span = tracing.span(
            "export part" if is_part else "export",
            parent=claim.traceparent,
            attributes=claim.trace_attributes,
        )
        with span.activate(), structlog.contextvars.bound_contextvars(**claim.log_fields):
            claim = replace(claim, traceparent=span.traceparent)
            attempt, finish, forget = self._begin(claim)
            task = asyncio.create_task(finish, name=f"attempt {claim.job_id}")
        self._tasks[task] = attempt
        metrics.SLOTS_IN_USE.set(self.slots_in_use)

        def done(_: object) -> None:
            del self._tasks[task]
            span.end()
            forget()
            self._note_end()

        attempt.export.add_done_callback(lambda _: self._note_end())
        task.add_done_callback(done)

    def _note_end(self) -> None:
        """Claim again, if work can be left, after an export or an attempt has ended."""
        metrics.SLOTS_IN_USE.set(self.slots_in_use)
        if self._claim_skipped or self._queue.is_work_left:
            self._wake.set()

    def _begin(self, claim: Claim) -> tuple[RunningAttempt, Coroutine[Any, Any, None], Callable[[], None]]:
        """Start an export; return the attempt, the coroutine that finishes it, and what removes it."""
        if isinstance(claim, PartClaim):
            part = self._part_runner.start(claim)
            return part, self._part_runner.finish(part), _put(self._parts, claim.key, part)
        attempt = self._runner.start(claim)
        return attempt, self._runner.finish(attempt), _put(self._attempts, claim.job_id, attempt)


def _can_start_at_once(job: NewJob) -> bool:
    """Return whether only what waits and runs decides if the job can start: it is due, and is not divided."""
    return job.outcome is None and job.split is None and job.not_before is None


def _put(running: dict[Key, Running], key: Key, attempt: Running) -> Callable[[], None]:
    """Note an attempt under its key, and stop the one before. Return the function that removes it again."""
    if taken_over := running.get(key):
        taken_over.end(StopReason.LEASE_LOST)
    running[key] = attempt

    def remove() -> None:
        if running.get(key) is attempt:
            del running[key]

    return remove


def _progress(attempt: Attempt) -> AttemptProgress:
    return AttemptProgress(
        attempt.claim.job_id,
        attempt.claim.attempt,
        attempt.progress.tally.rows,
        attempt.progress.estimated_rows,
        attempt.stages,
    )


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        return

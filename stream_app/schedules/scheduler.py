"""Starts the runs of schedules that are due: each run exactly once, however many workers try it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.exports.datasets import Dataset
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.submission import NewJob, RequestValidator, submit
from stream_app.observability import tracing
from stream_app.schedules.records import DueSchedule, Gap
from stream_app.schedules.runs import (
    AllRowsPermission,
    calendar_of,
    missing_time_column,
    planning_error,
    run_request,
    start_delay,
    unplanned_run_request,
)
from stream_app.schedules.store import ScheduleStore
from stream_app.schedules.windows import CatchUp, Run, Window, Windowing, earliest_start, plan
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected, Unreadable
from streaming_exporter.events import Event, EventType, LifecycleData, lifecycle_event

log = structlog.get_logger(__name__)

PLANNING = ThreadPoolExecutor(1, thread_name_prefix="planning")
"""Planning has a thread of its own: it must not wait while other work holds all threads."""

BATCH = 500
"""How many schedules one transaction handles."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Starts runs. ``emit`` publishes events and returns once all are confirmed."""

    schedules: ScheduleStore
    jobs: JobQueue
    emit: Callable[[Sequence[Event]], Awaitable[None]]
    validator: RequestValidator
    datasets: Mapping[str, Dataset]
    settings: Settings
    note_progress: Callable[[], None] = lambda: None
    """Called after each batch that was committed: thousands of schedules can be due at one tick."""

    async def now(self) -> datetime:
        """Return the time by the state database's clock, by which runs are due.

        Raises:
            Retryable: the database is away.
        """
        return await self.schedules.now()

    async def run_due(self, until: datetime) -> int:
        """Start all runs that are due at ``until``; return how many.

        Raises:
            Retryable: the database or Kafka is away. Committed runs stay, the others are still due.
        """
        started = 0
        while True:
            due = await self.schedules.due(until, BATCH)
            if not due:
                return started
            taken, runs = await self._run_batch(due, until)
            started += runs
            self.note_progress()
            if len(due) < BATCH and taken == len(due):
                return started

    async def _run_batch(self, due: Sequence[DueSchedule], until: datetime) -> tuple[int, int]:
        """Plan runs, insert their jobs and advance the schedules in one transaction, then admit the jobs.

        No row is locked during planning, which takes long for hundreds of schedules, or while it waits for
        Kafka. A schedule that was changed meanwhile stays due. A job that was inserted and could not be
        admitted here is admitted by its request, which the outbox relay publishes.

        Returns:
            How many schedules were handled, and how many runs started.
        """
        gaps = await self.schedules.gaps([row.id for row in due], self.settings.schedule_catch_up_limit)
        planned = await asyncio.get_running_loop().run_in_executor(PLANNING, self._plan_all, due, gaps, until)
        async with self.schedules.transaction() as connection:
            kept = await self.schedules.lock_unchanged(connection, due)
            planned = [item for item in planned if item.schedule_id in kept]
            for item in planned:
                if item.error is not None:
                    # Else it would stay due for ever: it is paused, and a failed run tells its owner the
                    # reason.
                    reason = str(planning_error(item.error))
                    log.warning(
                        "schedule.paused",
                        schedule_id=str(item.schedule_id),
                        error=reason,
                        exc_info=item.error,
                    )
                    await self.schedules.update(
                        connection, item.schedule_id, paused_values(reason, due[0].now)
                    )
            gap_ids = [job.id for item in planned for job in item.gap_jobs]
            closed = await self.schedules.close_gaps(connection, gap_ids)
            jobs = [job for item in planned for job in item.jobs]
            jobs += [job for item in planned for job in item.gap_jobs if job.id in closed]
            accepted, outcomes = await self._submit(connection, jobs)
            await self.schedules.advance(connection, [item.state for item in planned if item.state])
        await self.emit([lifecycle_event(EventType.ACCEPTED, data) for data in accepted])
        await self.jobs.mark_admitted([data.job_id for data in accepted])
        await self.emit([lifecycle_event(EVENT_OF[Status(data.status)], data) for data in outcomes])
        return len(kept), len(accepted)

    def _plan_all(
        self, due: Sequence[DueSchedule], gaps: Mapping[UUID, Sequence[Gap]], until: datetime
    ) -> list["PlannedSchedule"]:
        """Plan each schedule. A schedule that cannot be planned does not delay the others."""
        found = []
        for schedule in due:
            try:
                found.append(self._plan(schedule, gaps.get(schedule.id, ()), until))
            except Exception as error:  # the other schedules must not wait for this one
                jobs = self._failed_run(schedule, planning_error(error))
                found.append(PlannedSchedule(schedule.id, jobs, error=error))
        return found

    def _plan(self, schedule: DueSchedule, gaps: Sequence[Gap], until: datetime) -> "PlannedSchedule":
        """Return the jobs of a schedule that is due, and the new values of its row."""
        calendar = calendar_of(schedule)
        windowing = Windowing(schedule.window)
        found = plan(
            calendar,
            next_run=schedule.next_run,
            until=until,
            window_start=schedule.window_start,
            windowing=windowing,
            catch_up=CatchUp(schedule.catch_up),
            limit=self.settings.schedule_catch_up_limit,
        )
        if windowing is Windowing.NONE or not found.runs:
            gaps = ()
        gap_jobs = [
            self._job(schedule, Run(schedule.next_run, _window(gap)), until, calendar.zone, gap_id=gap.id)
            for gap in gaps
        ]
        return PlannedSchedule(
            schedule.id,
            [self._job(schedule, run, until, calendar.zone) for run in found.runs],
            gap_jobs=gap_jobs,
            state={
                "id": schedule.id,
                "last_run": found.runs[-1].at if found.runs else None,
                "next_run": found.next_run,
                "window_start": found.window_start,
            },
        )

    def _job(
        self, schedule: DueSchedule, run: Run, until: datetime, zone: ZoneInfo, *, gap_id: UUID | None = None
    ) -> NewJob:
        """Return the job of a run. It starts once its time and its window are over by the database clock."""
        dataset = self.datasets.get(schedule.export_type)
        order = run_request(schedule, run, dataset, zone, job_id=gap_id)
        refusal = self._refusal(schedule) or missing_time_column(run, dataset)
        jitter = start_delay(schedule.id, self.settings.schedule_jitter_seconds)
        job = order.job(self.validator, now=schedule.now, refusal=refusal)
        due_in = run.at + timedelta(seconds=schedule.delay) + jitter - until
        not_before = max(schedule.now + due_in, earliest_start(run, schedule.delay))
        return replace(job, not_before=not_before if not_before > schedule.now else None)

    def _failed_run(self, schedule: DueSchedule, error: Rejected) -> list[NewJob]:
        """Return the failed job of a run that cannot be planned, for the history and for notifications."""
        try:
            return [unplanned_run_request(schedule).job(self.validator, now=schedule.now, refusal=error)]
        except Unreadable:
            return []  # not even the record of a job can be made of it

    def _refusal(self, schedule: DueSchedule) -> Rejected | None:
        return AllRowsPermission.of(self.settings).refusal(schedule, schedule.now)

    async def _submit(
        self, connection: AsyncConnection, jobs: Sequence[NewJob]
    ) -> tuple[Sequence[LifecycleData], Sequence[LifecycleData]]:
        """Insert the jobs of runs, each in a trace of its own.

        Returns:
            The ``export.accepted`` data of the inserted jobs, and the outcomes of those that have ended
            already, since they cannot run.
        """
        with tracing.end_together(
            tracing.span("run schedule", attributes=_trace_attributes(job)) for job in jobs
        ) as spans:
            traced = [
                replace(job, traceparent=span.traceparent) for job, span in zip(jobs, spans, strict=True)
            ]
            accepted = await submit(connection, traced)
        inserted = {data.job_id for data in accepted}
        outcomes = [job.event_outcome for job in traced if job.id in inserted]
        return accepted, [outcome for outcome in outcomes if outcome is not None]


@dataclass(frozen=True, slots=True)
class PlannedSchedule:
    """What to do for one schedule that is due.

    Attributes:
        schedule_id: the schedule.
        jobs: the jobs of its runs.
        gap_jobs: jobs that export the windows of gaps. Each has the id of its gap.
        state: the new values of the schedule's row, or ``None``.
        error: why the schedule cannot be planned, or ``None``.
    """

    schedule_id: UUID
    jobs: list[NewJob]
    gap_jobs: Sequence[NewJob] = ()
    state: dict[str, Any] | None = None
    error: Exception | None = None


def _window(gap: Gap) -> Window:
    return Window(gap.window_start, gap.window_end)


def _trace_attributes(job: NewJob) -> tracing.Attributes:
    return {
        "exporter.job.id": str(job.id),
        "exporter.schedule.id": str(job.schedule_id),
        "exporter.dataset": job.export_type,
        "exporter.format": job.format,
    }


def paused_values(reason: str, at: datetime) -> dict[str, Any]:
    """Return the values of a schedule that the service pauses."""
    return {"active": False, "next_run": None, "paused_at": at, "paused_reason": reason}

"""Handles ticks: starts the runs of schedules that are due.

Each run starts exactly once, however many workers handle the tick.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from faust.types import EventT
from pydantic_core import to_json
from sqlalchemy import ColumnElement, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from stream_app.db.engine import autocommit_connection, transaction
from stream_app.jobs.new_job import NewJob, with_creation_order
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.submission import mark_admitted, submit
from stream_app.kafka.event_producer import EventProducer
from stream_app.observability import tracing
from stream_app.schedules.models import DueSchedule, Gap, ScheduledExport
from stream_app.schedules.run_planner import PlannedSchedule, RunPlanner, planning_error
from stream_app.settings import Settings
from stream_app.worker.batches import decode_all
from streaming_exporter.errors import Unreadable
from streaming_exporter.events import Event, EventType, LifecycleData, Topic, lifecycle_event

log = structlog.get_logger(__name__)

STALE_AFTER = timedelta(minutes=5)
"""A tick that has waited longer than this was published before an outage."""

PLANNING = ThreadPoolExecutor(1, thread_name_prefix="planning")
"""Planning has a thread of its own: it must not wait while other work holds all threads."""

BATCH = 500
"""How many schedules one transaction handles."""

VERSION: ColumnElement[str] = literal_column("xmin::text")
"""PostgreSQL's own number of the transaction that wrote the row last."""

_LOCK_UNCHANGED = text(
    """
    SELECT schedule.id
    FROM unnest(CAST(:ids AS uuid[]), CAST(:versions AS text[])) AS seen (id, version)
    JOIN scheduled_exports AS schedule ON schedule.id = seen.id AND schedule.xmin::text = seen.version
    FOR UPDATE OF schedule SKIP LOCKED
    """
)

_PAUSE = text(
    """
    UPDATE scheduled_exports
    SET active = false, next_run = NULL, paused_at = :paused_at,
        paused_reason = :reason, paused_code = :code, window_start = :window_start
    WHERE id = :id
    """
)

_GAPS = text(
    """
    SELECT gap.id, gap.schedule_id, gap.window_start, gap.window_end
    FROM unnest(CAST(:ids AS uuid[])) AS schedule (id)
    CROSS JOIN LATERAL (
        SELECT * FROM schedule_gaps WHERE schedule_id = schedule.id ORDER BY window_start LIMIT :limit
    ) AS gap
    """
)

_CLOSE_GAPS = text("DELETE FROM schedule_gaps WHERE id = ANY (CAST(:ids AS uuid[])) RETURNING id")

# The whole batch is one parameter, as for the insertion of jobs.
_ADVANCE = text(
    """
    UPDATE scheduled_exports AS schedule
    SET last_run = coalesce(run.last_run, schedule.last_run), next_run = run.next_run,
        window_start = run.window_start
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS run (
        id uuid, last_run timestamptz, next_run timestamptz, window_start timestamptz
    )
    WHERE schedule.id = run.id
    """
)


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Handles messages of ``exports.ticks``; idempotent, since a run that has started is not due again.

    Attributes:
        engine: the state database, with autocommit.
        producer: publishes events, and returns once all are confirmed.
        planner: plans the runs.
        settings: the configuration.
        note_progress: called after each committed batch, because one tick can have thousands of due
            schedules.
    """

    engine: AsyncEngine
    producer: EventProducer
    planner: RunPlanner
    settings: Settings
    note_progress: Callable[[], None] = lambda: None

    async def handle(self, messages: Sequence[EventT[bytes]]) -> None:
        """Start the runs that are due at each tick of a batch, in order.

        A tick that is too far ahead of the database's clock is dead-lettered. What is due by that clock
        starts nevertheless, so that a wrong clock does not stop all schedules.

        Raises:
            Retryable: the database or Kafka is away; handling the batch again does no harm.
        """
        now = await self.now()
        moments: set[datetime] = set()
        read, unread = decode_all(messages, Topic.TICKS)
        refused: list[tuple[EventT[bytes], Unreadable]] = []
        for message, event in read:
            moment = moment_of(event, now)
            if moment - now > timedelta(seconds=self.settings.tick_lead_seconds):
                log.warning("tick.rejected", at=moment.isoformat(), source=event.source, now=now.isoformat())
                refused.append((message, _ahead(moment, now)))
                moments.add(now)
            else:
                moments.add(moment)
        for moment in sorted(moments):
            runs = await self.run_due(moment)
            if runs:
                log.info("tick.handled", at=moment.isoformat(), runs=runs)
        for message, reason in [*unread, *refused]:
            await self.producer.dead_letter(message, reason)

    async def now(self) -> datetime:
        """Return the time by the state database's clock, by which runs are due.

        Raises:
            Retryable: the database is away.
        """
        async with autocommit_connection(self.engine) as connection:
            return (await connection.execute(select(func.now()))).scalar_one()

    async def run_due(self, until: datetime) -> int:
        """Start all runs that are due at ``until``; return how many.

        Raises:
            Retryable: the database or Kafka is away. Committed runs stay, the others are still due.
        """
        started = 0
        while True:
            due = await self._due(until)
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
        gaps = await self._gaps([row.id for row in due])
        loop = asyncio.get_running_loop()
        planned = await loop.run_in_executor(PLANNING, self.planner.plan_all, due, gaps, until)
        async with transaction(self.engine) as connection:
            kept = await _lock_unchanged(connection, due)
            planned = [item for item in planned if item.schedule_id in kept]
            for item in planned:
                if item.error is not None:
                    await _pause(connection, item, item.error, due[0].now)
            gap_ids = [job.id for item in planned for job in item.gap_jobs]
            closed = await _close_gaps(connection, gap_ids)
            # The latest window comes last, so that no earlier one replaces its file at a shared path.
            jobs = [job for item in planned for job in item.gap_jobs if job.id in closed]
            jobs += sorted((job for item in planned for job in item.jobs), key=_run_at)
            accepted, outcomes = await _submit(connection, with_creation_order(jobs))
            await self.advance(connection, [item.state for item in planned if item.state])
        for item in planned:
            _log_left_out(item)
        await self.producer.publish_all([lifecycle_event(EventType.ACCEPTED, data) for data in accepted])
        await self.admit([data.job_id for data in accepted])
        await self.producer.publish_all(
            [lifecycle_event(EVENT_OF[Status(data.status)], data) for data in outcomes]
        )
        return len(kept), len(accepted)

    async def _due(self, until: datetime) -> list[DueSchedule]:
        """Return up to :data:`BATCH` schedules that are due, the longest due first.

        Locked schedules are skipped, and no row stays locked.
        """
        statement = (
            select(ScheduledExport.__table__, VERSION.label("version"), func.now().label("now"))
            .where(ScheduledExport.active, ScheduledExport.next_run <= until)
            .order_by(ScheduledExport.next_run)
            .limit(BATCH)
            .with_for_update(skip_locked=True)
        )
        async with autocommit_connection(self.engine) as connection:
            return [DueSchedule(**row._mapping) for row in await connection.execute(statement)]

    async def _gaps(self, ids: Sequence[UUID]) -> dict[UUID, list[Gap]]:
        """Return the oldest gaps of each schedule, up to the limit of runs that it can catch up at once."""
        values = {"ids": list(ids), "limit": self.settings.schedule_catch_up_limit}
        found: dict[UUID, list[Gap]] = {}
        async with autocommit_connection(self.engine) as connection:
            for row in await connection.execute(_GAPS, values):
                found.setdefault(row.schedule_id, []).append(Gap(**row._mapping))
        return found

    async def advance(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        """Write ``next_run``, ``window_start`` and, unless it is ``None``, ``last_run`` of each ``id``."""
        await connection.execute(_ADVANCE, {"rows": to_json(rows).decode()})

    async def admit(self, ids: Sequence[UUID]) -> None:
        """Admit jobs whose ``export.accepted`` Kafka has confirmed."""
        if ids:
            async with autocommit_connection(self.engine) as connection:
                await mark_admitted(connection, ids)


async def _lock_unchanged(connection: AsyncConnection, rows: Sequence[DueSchedule]) -> set[UUID]:
    """Lock those of ``rows`` that were not changed, locked or removed since; return their ids."""
    versions = {"ids": [row.id for row in rows], "versions": [row.version for row in rows]}
    return set((await connection.scalars(_LOCK_UNCHANGED, versions)).all())


def _log_left_out(planned: PlannedSchedule) -> None:
    """Log the runs that start no job, of which there is no other record."""
    begin = (planned.state or {}).get("window_start")
    for at in planned.left_out:
        log.info(
            "schedule.run_left_out",
            schedule_id=str(planned.schedule_id),
            run_at=at.isoformat(),
            window_start=begin and begin.isoformat(),
        )


async def _pause(
    connection: AsyncConnection, planned: PlannedSchedule, error: Exception, at: datetime
) -> None:
    """Pause a schedule that cannot be planned. Otherwise it would stay due forever.

    A failed run informs its owner of the reason.
    """
    refusal = planning_error(error)
    reason = str(refusal)
    log.warning("schedule.paused", schedule_id=str(planned.schedule_id), error=reason, exc_info=error)
    values = {"id": planned.schedule_id, "paused_at": at, "reason": reason, "code": refusal.code}
    await connection.execute(_PAUSE, {**values, "window_start": planned.window_start})


async def _close_gaps(connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
    """Remove gaps for which runs were planned; return the ids of those that still existed."""
    if not ids:
        return set()
    return set((await connection.scalars(_CLOSE_GAPS, {"ids": list(ids)})).all())


async def _submit(
    connection: AsyncConnection, jobs: Sequence[NewJob]
) -> tuple[Sequence[LifecycleData], Sequence[LifecycleData]]:
    """Insert the jobs of runs, each in a trace of its own.

    Returns:
        The ``export.accepted`` data of the inserted jobs, and the outcomes of those that have ended already,
        since they cannot run.
    """
    with tracing.end_together(
        tracing.span("run schedule", attributes=_trace_attributes(job)) for job in jobs
    ) as spans:
        traced = [replace(job, traceparent=span.traceparent) for job, span in zip(jobs, spans, strict=True)]
        accepted = await submit(connection, traced)
    inserted = {data.job_id for data in accepted}
    outcomes = [job.event_outcome for job in traced if job.id in inserted]
    return accepted, [outcome for outcome in outcomes if outcome is not None]


def _run_at(job: NewJob) -> datetime:
    return job.run_at or job.created_at


def _trace_attributes(job: NewJob) -> tracing.Attributes:
    return {
        "exporter.job.id": str(job.id),
        "exporter.schedule.id": str(job.schedule_id),
        "exporter.dataset": job.export_type,
        "exporter.format": job.format,
    }


def _ahead(moment: datetime, now: datetime) -> Unreadable:
    return Unreadable(
        f"the tick is for {moment.isoformat()}, which is ahead of the state database's clock, "
        f"{now.isoformat()}; correct the clock of the ticker's machine"
    )


def moment_of(event: Event, now: datetime) -> datetime:
    """Return the time that a tick stands for when it is read at ``now``.

    A tick that waited in Kafka during an outage also stands for the minutes since then, so that all runs of
    that time count as missed at once, and not one after the other.
    """
    waited = now - event.time if event.time is not None else timedelta(0)
    return event.tick + waited if waited > STALE_AFTER else event.tick

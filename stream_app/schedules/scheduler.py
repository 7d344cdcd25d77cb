"""Turns the schedules that are due into jobs: each run exactly once, whoever does it and however often."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from stream_app.addresses import AddressRules
from stream_app.exports.datasets import Dataset
from stream_app.exports.formats.base import Format
from stream_app.jobs.queue import JobQueue
from stream_app.jobs.states import EVENT_OF, Status
from stream_app.jobs.submission import job_row
from stream_app.observability import tracing
from stream_app.schedules.runs import (
    Order,
    Rights,
    calendar_of,
    order_of,
    start_delay,
    unlimited,
    unplanned_order,
    why,
)
from stream_app.schedules.store import ScheduleStore
from stream_app.schedules.windows import CatchUp, Run, Window, Windowing, plan, starts_at
from stream_app.settings import Settings
from streaming_exporter.errors import Rejected, Unreadable
from streaming_exporter.events import Event, EventType, LifecycleData, lifecycle_event

log = structlog.get_logger(__name__)

PLANNING = ThreadPoolExecutor(1, thread_name_prefix="planning")
"""Planning is done in a transaction: it must not wait for a thread that something else holds."""

BATCH = 500
"""Schedules that one transaction takes."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Starts runs. ``emit`` publishes events and returns once all are confirmed."""

    schedules: ScheduleStore
    jobs: JobQueue
    emit: Callable[[Sequence[Event]], Awaitable[None]]
    formats: Mapping[str, Format]
    datasets: Mapping[str, Dataset]
    settings: Settings
    note_progress: Callable[[], None] = lambda: None
    """Told of each batch that was committed: thousands of schedules can be due at one tick."""

    async def now(self) -> datetime:
        """The time by the clock that decides, the state database's.

        Raises:
            Retryable: the database is away.
        """
        return await self.schedules.now()

    async def run_due(self, until: datetime) -> int:
        """Start everything that is due at ``until``; returns how many runs that were.

        Raises:
            Retryable: the database or Kafka is away; what was committed stays, the rest is still due.
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

    async def _run_batch(self, due: Sequence[Row[Any]], until: datetime) -> tuple[int, int]:
        """Plan, then insert jobs and advance schedules in one transaction, then let the jobs be claimed.

        Nothing is locked while it is planned, which for hundreds takes a while, or while Kafka is waited for:
        a schedule that was changed meanwhile stays due. A job that was inserted and not let go on is
        admitted by way of its request, which the relay publishes. Returns how many schedules were advanced,
        and how many runs started.
        """
        gaps = await self.schedules.gaps([row.id for row in due], self.settings.schedule_catch_up_limit)
        planned = await asyncio.get_running_loop().run_in_executor(PLANNING, self._plan_all, due, gaps, until)
        async with self.schedules.transaction() as connection:
            kept = await self.schedules.lock_unchanged(connection, due)
            planned = [item for item in planned if item.schedule_id in kept]
            for item in planned:
                if item.error is not None:
                    # It would stay due for ever: it is put aside, and its owner is told why by a failed run.
                    reason = str(why(item.error))
                    log.warning(
                        "schedule.unusable",
                        schedule_id=str(item.schedule_id),
                        error=reason,
                        exc_info=item.error,
                    )
                    await self.schedules.update(connection, item.schedule_id, paused(reason, due[0].now))
            gap_ids = [gap_id for item in planned for gap_id in item.gaps]
            closed = await self.schedules.close_gaps(connection, gap_ids)
            wanted = [row for item in planned for row in item.rows]
            rows = [row for row in wanted if not row.pop("of_gap") or row["id"] in closed]
            accepted = await self._insert(connection, rows)
            await self.schedules.advance(connection, [item.state for item in planned if item.state])
        await self.emit([lifecycle_event(EventType.ACCEPTED, data) for data in accepted])
        await self.jobs.mark_admitted([data.job_id for data in accepted])
        await self._publish_outcomes(rows, accepted)
        return len(kept), len(accepted)

    def _plan_all(
        self, due: Sequence[Row[Any]], gaps: Mapping[UUID, Sequence[Row[Any]]], until: datetime
    ) -> list["Planned"]:
        """What is to become of each schedule; one that cannot be planned holds up no other."""
        found = []
        for schedule in due:
            try:
                found.append(self._plan(schedule, gaps.get(schedule.id, ()), until))
            except Exception as error:  # whatever it is, the other schedules are not to wait for it
                found.append(Planned(schedule.id, self._failed_run(schedule, why(error)), error=error))
        return found

    def _plan(self, schedule: Row[Any], gaps: Sequence[Row[Any]], until: datetime) -> "Planned":
        """The jobs of a schedule that is due, and what becomes of its own row."""
        calendar = calendar_of(schedule)
        windowing = Windowing(schedule.window)
        found = plan(
            calendar,
            next_run=schedule.next_run,
            until=until,
            mark=schedule.window_start,
            windowing=windowing,
            catch_up=CatchUp(schedule.catch_up),
            most=self.settings.schedule_catch_up_limit,
        )
        if windowing is Windowing.NONE or not found.runs:
            gaps = ()
        made_up = [
            self._run_row(schedule, Run(schedule.next_run, _window(gap)), until, calendar.zone, gap_id=gap.id)
            for gap in gaps
        ]
        return Planned(
            schedule.id,
            made_up + [self._run_row(schedule, run, until, calendar.zone) for run in found.runs],
            gaps=[gap.id for gap in gaps],
            state={
                "id": schedule.id,
                "last_run": found.runs[-1].at if found.runs else None,
                "next_run": found.next_run,
                "window_start": found.mark,
            },
        )

    def _run_row(
        self, schedule: Row[Any], run: Run, until: datetime, zone: ZoneInfo, *, gap_id: UUID | None = None
    ) -> dict[str, Any]:
        """The row of a run's job; it may start once its time and its window are past by the database."""
        dataset = self.datasets.get(schedule.export_type)
        order = order_of(schedule, run, dataset, zone, job_id=gap_id)
        refusal = self._refusal(schedule) or unlimited(run, dataset)
        jitter = start_delay(schedule.id, self.settings.schedule_jitter_seconds)
        row = self._job_row(schedule, order, refusal=refusal)
        due_in = run.at + timedelta(seconds=schedule.delay) + jitter - until
        not_before = max(schedule.now + due_in, starts_at(run, schedule.delay))
        return row | {
            "not_before": not_before if not_before > schedule.now else None,
            "of_gap": gap_id is not None,
        }

    def _failed_run(self, schedule: Row[Any], refusal: Rejected) -> list[dict[str, Any]]:
        """The run that there should have been, for the history and for those who are told of failures."""
        try:
            row = self._job_row(schedule, unplanned_order(schedule), refusal=refusal)
        except Unreadable:
            return []  # not even the record of a job can be made of it
        return [row | {"not_before": None, "of_gap": False}]

    def _refusal(self, schedule: Row[Any]) -> Rejected | None:
        return Rights.of(self.settings).refusal(schedule, schedule.now)

    def _job_row(self, schedule: Row[Any], order: Order, *, refusal: Rejected | None) -> dict[str, Any]:
        """The row of a run's job, unadmitted, or one that is refused."""
        row = job_row(
            order.event,
            now=schedule.now,
            formats=self.formats,
            datasets=self.datasets,
            addressing=AddressRules.of(self.settings),
            refusal=refusal,
        )
        return row | order.record

    async def _insert(
        self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]
    ) -> Sequence[LifecycleData]:
        with tracing.end_together(
            tracing.span("run schedule", attributes=_traced(row)) for row in rows
        ) as begun:
            for row, span in zip(rows, begun, strict=True):
                row["traceparent"] = span.traceparent
            return await self.jobs.admit(connection, rows)

    async def _publish_outcomes(
        self, rows: Sequence[dict[str, Any]], accepted: Sequence[LifecycleData]
    ) -> None:
        """Runs that were refused have ended as they were admitted."""
        fresh = {data.job_id for data in accepted}
        refused = [
            LifecycleData.model_validate(row["outcome"] | {"traceparent": row["traceparent"]})
            for row in rows
            if row["outcome"] and row["id"] in fresh
        ]
        await self.emit([lifecycle_event(EVENT_OF[Status(data.status)], data) for data in refused])


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to become of one schedule.

    ``rows`` are those of its jobs, ``gaps`` the ids of gaps that some of them make up for, ``state`` is what
    its own row becomes, and ``error`` is why it cannot be planned.
    """

    schedule_id: UUID
    rows: list[dict[str, Any]]
    gaps: Sequence[UUID] = ()
    state: dict[str, Any] | None = None
    error: Exception | None = None


def _window(gap: Row[Any]) -> Window:
    return Window(gap.window_start, gap.window_end)


def _traced(row: Mapping[str, Any]) -> tracing.Attributes:
    return {
        "exporter.job.id": str(row["id"]),
        "exporter.schedule.id": str(row["schedule_id"]),
        "exporter.dataset": row["export_type"],
        "exporter.format": row["format"],
    }


def paused(reason: str, at: datetime) -> dict[str, Any]:
    """Values of a schedule that is paused by the service."""
    return {"active": False, "next_run": None, "paused_at": at, "paused_reason": reason}
